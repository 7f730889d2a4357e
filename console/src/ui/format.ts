/** Times and durations as short texts in the person's language and time zone. */

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })
const DAY_MS = 86_400_000

export function formatTime(iso: string): string {
  const at = new Date(iso)
  return Date.now() - at.getTime() < DAY_MS && at.getDate() === new Date().getDate() ? time.format(at) : day.format(at)
}

export function formatDuration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`
}

/** JSON on one line, cut. */
export function preview(value: unknown, length = 80): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  return text.length > length ? `${text.slice(0, length)}…` : text
}

/** What a tool got, as `name: value` pairs. */
export function previewArguments(value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return preview(value)
  return preview(
    Object.entries(value)
      .map(([name, argument]) => `${name}: ${preview(argument, 60)}`)
      .join(', '),
  )
}
