/** How the console talks to the assistant: over the AI SDK front end of the service, as any page can (docs/ai-sdk.md). */
import { DefaultChatTransport } from 'ai'
import { authorizedFetch, call, userPath } from '../api'
import type { ChatMessage } from './messages'

const PATH = 'ai-sdk/chat'
/** How many turns are read at once. */
export const TURNS = 50

export interface History {
  messages: ChatMessage[]
  activeStreamId: string | null
}

/** Sends the last message only: the service has the others, and believes no history of a page. */
export function createTransport(): DefaultChatTransport<ChatMessage> {
  return new DefaultChatTransport<ChatMessage>({
    api: userPath(PATH),
    fetch: authorizedFetch,
    prepareSendMessagesRequest: ({ id, messages, trigger, messageId, body }) => ({
      body: { ...body, id, trigger, messageId, message: messages.findLast((message) => message.role === 'user') },
    }),
  })
}

/** The conversation as the service has it. A running turn has no answer here: its stream begins with its first event. */
export function loadHistory(name: string, before?: string): Promise<History> {
  const query = `limit=${TURNS}${before ? `&before=${before}` : ''}`
  return call<History>('GET', `${PATH}/${encodeURIComponent(name)}?${query}`)
}

export async function stopTurn(name: string): Promise<void> {
  await call('POST', `${PATH}/${encodeURIComponent(name)}/stop`)
}
