/** How the console talks to the assistant: sends a message, follows the turn, and reads a conversation again. */
import type { ChatTransport, UIMessageChunk } from 'ai'
import { authorizedFetch, call, problemOf, userPath } from '../api'
import type { Conversation, Page, ToolCall, Turn } from '../types'
import type { ChatMessage } from './messages'
import { textOf } from './messages'
import { readEvents } from './events'

export interface History {
  messages: ChatMessage[]
  activeStreamId: string | null
}

interface StoredMessage {
  id: string
  turn_id: string
  role: 'user' | 'assistant'
  content: string
  tool_calls: ToolCall[]
  created_at: string
}

const ids = new Map<string, string>()

async function idOf(name: string, create: boolean): Promise<string | null> {
  if (name.length === 36) return name
  const known = ids.get(name) ?? sessionStorage.getItem(name)
  if (known || !create) return known
  const { id } = await call<Conversation>('POST', 'conversations', {})
  ids.set(name, id)
  sessionStorage.setItem(name, id)
  return id
}

export async function loadHistory(chat: string): Promise<History> {
  const name = await idOf(chat, false)
  if (name === null) return { messages: [], activeStreamId: null }
  const page = await call<Page<StoredMessage>>('GET', `conversations/${name}/messages?limit=200`)
  const turns = await call<Page<Turn>>('GET', `conversations/${name}/turns?limit=1`)
  return {
    messages: page.items.map(shown),
    activeStreamId: turns.items.find((turn) => turn.status === 'running')?.id ?? null,
  }
}

export async function stopTurn(name: string): Promise<void> {
  const { activeStreamId } = await loadHistory(name)
  if (activeStreamId) await call('POST', `turns/${activeStreamId}/cancel`)
}

export const transport: ChatTransport<ChatMessage> = {
  async sendMessages({ chatId, messages, body, abortSignal }) {
    const last = messages.findLast((message) => message.role === 'user')
    const response = await authorizedFetch(userPath('chat'), {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ message: last ? textOf(last) : '', conversation_id: await idOf(chatId, true), ...body }),
      signal: abortSignal ?? null,
    })
    return chunksOf(response)
  },
  async reconnectToStream({ chatId, abortSignal }) {
    const { activeStreamId } = await loadHistory(chatId)
    if (activeStreamId === null) return null
    return chunksOf(await authorizedFetch(userPath(`turns/${activeStreamId}/events`), { signal: abortSignal ?? null }))
  },
}

function shown(message: StoredMessage): ChatMessage {
  const calls = message.tool_calls.map(
    (called) =>
      ({
        type: `tool-${called.name}`,
        toolCallId: called.id,
        input: called.arguments,
        ...(called.is_error
          ? { state: 'output-error', errorText: JSON.stringify(called.result) }
          : { state: 'output-available', output: called.result }),
      }) as ChatMessage['parts'][number],
  )
  return {
    id: message.role === 'user' ? message.id : message.turn_id,
    role: message.role,
    metadata: { turnId: message.turn_id, createdAt: message.created_at },
    parts: [...calls, { type: 'text', text: message.content }],
  }
}

async function chunksOf(response: Response): Promise<ReadableStream<UIMessageChunk>> {
  if (!response.ok || response.body === null) throw problemOf(await response.text(), response.status)
  const events = readEvents(response.body)
  let textId: string | null = null
  return new ReadableStream<UIMessageChunk>({
    async pull(controller) {
      const { done, value } = await events.next()
      if (done) return controller.close()
      const data = value.data as Record<string, any>
      const closeText = () => {
        if (textId) controller.enqueue({ type: 'text-end', id: textId })
        textId = null
      }
      switch (value.event) {
        case 'turn.started':
          controller.enqueue({ type: 'start', messageId: data.turn_id, messageMetadata: { turnId: data.turn_id } })
          break
        case 'message.delta':
          if (textId === null) {
            textId = `${data.turn_id}-${value.id}`
            controller.enqueue({ type: 'text-start', id: textId })
          }
          controller.enqueue({ type: 'text-delta', id: textId, delta: data.text })
          break
        case 'tool_call.started':
          closeText()
          controller.enqueue({
            type: 'tool-input-available',
            toolCallId: data.id,
            toolName: data.name,
            input: data.arguments,
            providerExecuted: true,
          })
          break
        case 'tool_call.completed':
          controller.enqueue(
            data.is_error
              ? { type: 'tool-output-error', toolCallId: data.id, errorText: JSON.stringify(data.result) }
              : { type: 'tool-output-available', toolCallId: data.id, output: data.result },
          )
          break
        case 'artifact.created':
          closeText()
          controller.enqueue({ type: 'data-artifact', id: data.id, data } as UIMessageChunk)
          break
        case 'turn.failed':
        case 'turn.interrupted':
          closeText()
          controller.enqueue({ type: 'error', errorText: data.detail ?? 'The turn was interrupted.' })
          break
        default:
          closeText()
          controller.enqueue(value.event === 'turn.cancelled' ? { type: 'abort' } : { type: 'finish' })
      }
    },
  })
}
