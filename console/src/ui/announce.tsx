/** One live region for the page: a screen reader hears what happened, not each word of a stream. */
import { useSyncExternalStore } from 'react'

let text = ''
const listeners = new Set<() => void>()

/** Say a sentence. The same sentence again is said again. */
export function announce(sentence: string): void {
  text = sentence === text ? `${sentence}\u00a0` : sentence
  for (const listener of listeners) listener()
}

export function LiveRegion() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    () => text,
  )
  return (
    <div className="visually-hidden" role="status">
      {shown}
    </div>
  )
}
