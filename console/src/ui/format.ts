/** Times and durations as short texts in the person's language and time zone. */

const minutes = new Intl.DateTimeFormat(undefined, { timeStyle: 'short', hourCycle: 'h23' })
const seconds = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium', hourCycle: 'h23' })
const days = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })

/** The time of today, or the day. */
export function formatTime(iso: string): string {
  const at = new Date(iso)
  return at.toDateString() === new Date().toDateString() ? minutes.format(at) : days.format(at)
}

/** The time, and the day if it is not today. */
export function formatDayAndTime(iso: string): string {
  const at = new Date(iso)
  return at.toDateString() === new Date().toDateString() ? minutes.format(at) : `${days.format(at)}, ${minutes.format(at)}`
}

/** The time with seconds, and the day if it is not today. */
export function formatExactTime(iso: string): string {
  const at = new Date(iso)
  return at.toDateString() === new Date().toDateString() ? seconds.format(at) : `${days.format(at)}, ${seconds.format(at)}`
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
