/** Server-sent events of a response, as they arrive (HTML standard, 9.2). */
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { authorizedFetch, problemOf, userPath } from '../api'

export interface TurnEvent {
  id: string
  event: string
  data: unknown
}

export async function* readEvents(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<TurnEvent, void> {
  const stream = body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  const reader = stream.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield { id: value.id ?? '', event: value.event ?? '', data: JSON.parse(value.data) }
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

/** Follow the events of a turn: those that are stored, then new ones until the last. */
export async function* followTurn(turnId: string, after: string, signal: AbortSignal): AsyncGenerator<TurnEvent, void> {
  const headers: Record<string, string> = after ? { 'last-event-id': after } : {}
  const response = await authorizedFetch(userPath(`turns/${turnId}/events`), { headers, signal })
  if (!response.ok || response.body === null) throw problemOf(await response.text(), response.status)
  yield* readEvents(response.body)
}
