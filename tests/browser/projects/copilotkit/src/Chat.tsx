import { HttpAgent, type RunAgentInput } from '@ag-ui/client'
import { CopilotChat, CopilotKitProvider, WildcardToolCallRender, useAgent, useCopilotKit } from '@copilotkit/react-core/v2'
import '@copilotkit/react-core/v2/styles.css'
import { useEffect } from 'react'
import { Question } from './Question'

class Latchkey extends HttpAgent {
  // A run without a message shows the stored thread, and goes on with the turn that is running.
  connect = (input: RunAgentInput) => this.run({ ...input, messages: [] })
}
export const agent = new Latchkey({
  url: `${import.meta.env.VITE_LATCHKEY}/ag-ui`, // http://127.0.0.1:8000/api/me
  headers: { Authorization: `Bearer ${import.meta.env.VITE_TOKEN}` },
})
const threadId: string = (localStorage.thread ??= crypto.randomUUID())

function Reconnect() {
  const { agent } = useAgent()
  const { copilotkit } = useCopilotKit()
  const reconnect = () => void setTimeout(() => copilotkit.connectAgent({ agent }), 1000)
  useEffect(() => agent.subscribe({ onRunFailed: reconnect }).unsubscribe)
  return null
}

export const Chat = () => (
  <CopilotKitProvider selfManagedAgents={{ default: agent }} renderToolCalls={[WildcardToolCallRender]}>
    <CopilotChat threadId={threadId} />
    <Reconnect />
    <Question />
  </CopilotKitProvider>
)
