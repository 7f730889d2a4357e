/** What the console reads of the API's resources, as the OpenAPI document describes them. */
import type { components } from '../../clients/typescript/src/schema'

type Schemas = components['schemas']

export interface Page<T> {
  items: T[]
  next_cursor: string | null
}

export type Approval = Schemas['Approval']
export type Artifact = Schemas['Artifact'] & Partial<Pick<Schemas['ArtifactWithContent'], 'content_markdown'>>
export type Assistant = Schemas['AssistantSummary']
export type ContextToken = Schemas['ContextToken']
export type Conversation = Schemas['Conversation']
export type MintedToken = Schemas['FreshContextToken']
export type Task = Schemas['Task']
export type ToolCall = Schemas['ToolCall']
export type Turn = Schemas['PublishedTurn']
