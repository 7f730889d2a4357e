/** What the console reads of the API's resources, as the OpenAPI document describes them. */
import type { components } from '../../clients/typescript/src/schema'

type Schemas = components['schemas']

export interface Page<T> {
  items: T[]
  next_cursor: string | null
}

/** An open question: a tool call that the person is asked about. */
export interface Approval {
  id: string
  turn_id: string
  conversation_id: string
  name: string
  arguments: unknown
  requested_at: string
  expires_at: string
}

export type Artifact = Schemas['Artifact'] & Partial<Pick<Schemas['ArtifactWithContent'], 'content_markdown'>>
export type Assistant = Schemas['AssistantSummary']
export type ContextToken = Schemas['ContextToken']
export type Conversation = Schemas['Conversation']
export type MintedToken = Schemas['FreshContextToken']
export type Task = Schemas['Task']
export type ToolCall = Schemas['ToolCall']
export type Turn = Schemas['PublishedTurn'] & { can_undo?: boolean }
