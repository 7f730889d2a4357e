// A chat with assistant-ui: its primitives, and the AI SDK runtime with resumable streams.
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import {
  ActionBarPrimitive,
  AssistantRuntimeProvider,
  ComposerPrimitive,
  ErrorPrimitive,
  MessagePrimitive,
  ThreadPrimitive,
} from '@assistant-ui/react'
import { AssistantChatTransport, createResumableSessionStorage, useChatRuntime } from '@assistant-ui/react-ai-sdk'

type Settings = { url: string; userId: string; token: string; chat: string }

const { url, userId, token, chat: id } = (window as unknown as { latchkey: Settings }).latchkey
const api = `${url}/api/${userId}/ai-sdk/chat`
const headers = { Authorization: `Bearer ${token}` }
const { messages, activeStreamId } = await (await fetch(`${api}/${id}`, { headers })).json()
const storage = createResumableSessionStorage()
if (activeStreamId) storage.setStreamId(activeStreamId)
else storage.clear()
const transport = new AssistantChatTransport({
  api,
  headers,
  // assistant-ui makes a new id for the chat at each page load, so the page sends its own.
  prepareSendMessagesRequest: ({ messages, trigger, messageId, body }) => ({
    body: { ...body, id, messages, trigger, messageId },
  }),
  resumable: { storage, resumeApi: turn => `${api}/turn/${turn}/stream` },
})

function Assistant() {
  const runtime = useChatRuntime({
    messages,
    transport,
    // An edited message keeps its id, by which the service knows what it replaces.
    toCreateMessage: ({ role, content, sourceId }) =>
      ({ role, parts: content, ...(sourceId && { id: sourceId }) }) as never,
  })
  return (
    <AssistantRuntimeProvider runtime={runtime}>
      <ThreadPrimitive.Root>
        <div id="log">
          <ThreadPrimitive.Messages components={{ UserMessage, EditComposer, AssistantMessage }} />
        </div>
        <ComposerPrimitive.Root>
          <ComposerPrimitive.Input aria-label="Message" /> <ComposerPrimitive.Send>Send</ComposerPrimitive.Send>
          <ComposerPrimitive.Cancel onClick={() => void fetch(`${api}/${id}/stop`, { method: 'POST', headers })}>
            Stop
          </ComposerPrimitive.Cancel>
        </ComposerPrimitive.Root>
        <p id="status">
          <ThreadPrimitive.If running>running</ThreadPrimitive.If>
          <ThreadPrimitive.If running={false}>ready</ThreadPrimitive.If>
        </p>
      </ThreadPrimitive.Root>
    </AssistantRuntimeProvider>
  )
}

const UserMessage = () => (
  <MessagePrimitive.Root>
    <b data-text>
      <MessagePrimitive.Content />
    </b>
    <ActionBarPrimitive.Edit>Edit</ActionBarPrimitive.Edit>
  </MessagePrimitive.Root>
)

const EditComposer = () => (
  <ComposerPrimitive.Root>
    <ComposerPrimitive.Input aria-label="Edited message" /> <ComposerPrimitive.Send>Save</ComposerPrimitive.Send>
  </ComposerPrimitive.Root>
)

const AssistantMessage = () => (
  <MessagePrimitive.Root>
    <span data-text>
      <MessagePrimitive.Content components={{ tools: { Fallback: Tool } }} />
    </span>
    <MessagePrimitive.Error>
      <ErrorPrimitive.Root>
        <ErrorPrimitive.Message className="error" />
      </ErrorPrimitive.Root>
    </MessagePrimitive.Error>
    <ActionBarPrimitive.Reload>Regenerate</ActionBarPrimitive.Reload>
  </MessagePrimitive.Root>
)

const Tool = ({ toolName }: { toolName: string }) => <i>[{toolName}]</i>

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Assistant />
  </StrictMode>,
)
