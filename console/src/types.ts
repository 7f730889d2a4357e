/** What the console reads of the API's resources (docs/openapi.json). A field of a later release is ignored. */

export interface Page<T> {
  items: T[]
  next_cursor: string | null
}

export interface Conversation {
  id: string
  client_conversation_id?: string | null
  assistant?: string | null
  title: string | null
  last_message?: { role: string; content: string; created_at: string } | null
  running_turn_id?: string | null
  created_at: string
  updated_at: string
}

export interface ToolCall {
  id: string
  name: string
  arguments: unknown
  result: unknown
  is_error: boolean | null
  started_at: string
  duration_ms: number | null
}

export interface Turn {
  id: string
  conversation_id: string
  status: string
  agent: string
  assistant?: string
  model?: string | null
  replaced_by?: string | null
  error: { code: string; detail: string } | null
  usage: { requests: number; input_tokens: number; output_tokens: number } | null
  tool_calls: ToolCall[]
  started_at: string
  finished_at: string | null
}

export interface Task {
  id: string
  title: string
  description: string | null
  due_at: string | null
  status: string
  conversation_id: string | null
  created_at: string
  completed_at: string | null
}

export interface Artifact {
  id: string
  conversation_id: string | null
  artifact_type: string
  title: string
  version: number
  created_at: string
  updated_at: string
  content_markdown?: string
}

export interface ContextToken {
  id: string
  token?: string
  grants: string[]
  conversation_id: string | null
  turn_id: string | null
  created_at: string
  expires_at: string
  revoked_at: string | null
}

export interface Assistant {
  name: string
  title: string
  models: string[]
  tools: string[]
}
