/** The messages of a conversation as the AI SDK keeps them, and what the service adds to them. */
import type { UIMessage } from 'ai'
import { getToolName, isToolUIPart } from 'ai'

export interface Metadata {
  turnId?: string
  conversationId?: string
  agent?: string
  createdAt?: string
  status?: string
  error?: { code: string; detail: string } | null
}

export type ArtifactData = { id: string; artifact_type: string; title: string; version: number }
export type ChatMessage = UIMessage<Metadata, { artifact: ArtifactData }>
export type Part = ChatMessage['parts'][number]

/** A tool call as it is shown, whatever its type says. */
export interface Call {
  id: string
  name: string
  state: string
  input: unknown
  output: unknown
  errorText: string | null
  /** Whether the person has approved the call; null if they were not asked, or have not decided. */
  isApproved: boolean | null
  /** Why the person decided so, if they said it. */
  reason: string | null
}

export function callOf(part: Part): Call | null {
  if (!isToolUIPart(part)) return null
  return {
    id: part.toolCallId,
    name: getToolName(part),
    state: part.state,
    input: part.input,
    output: part.state === 'output-available' ? part.output : undefined,
    errorText: part.state === 'output-error' ? part.errorText : null,
    isApproved: part.approval?.approved ?? null,
    reason: part.approval?.reason ?? null,
  }
}

/** The text of a message without its tool calls. */
export function textOf(message: ChatMessage): string {
  return message.parts
    .filter((part) => part.type === 'text')
    .map((part) => part.text)
    .join('\n\n')
}
