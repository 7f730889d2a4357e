// A chat with CopilotKit's hooks under StrictMode. `connect` loads the thread and follows its running turn.
import { StrictMode, useEffect, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { HttpAgent, type Message, type RunAgentInput } from '@ag-ui/client'
import { CopilotKitProvider, useAgent, useCopilotKit } from '@copilotkit/react-core/v2'

type Settings = { url: string; userId: string; token: string; chat: string }

const { url, userId, token, chat: threadId } = (window as unknown as { latchkey: Settings }).latchkey

class Latchkey extends HttpAgent {
  // A run without a message shows the stored thread, and goes on with the turn that is running.
  connect = (input: RunAgentInput) => this.run({ ...input, messages: [] })
}

const latchkey = new Latchkey({
  url: `${url}/api/${userId}/ag-ui`,
  headers: { Authorization: `Bearer ${token}` },
  threadId,
})

function Chat() {
  const { agent } = useAgent()
  const { copilotkit } = useCopilotKit()
  const [error, setError] = useState('')
  useEffect(() => {
    const reconnect = () => void setTimeout(() => copilotkit.connectAgent({ agent }), 500)
    const { unsubscribe } = agent.subscribe({
      onRunInitialized: () => setError(''),
      onRunErrorEvent: ({ event }) => setError(event.message),
      onRunFailed: ({ error }) => (setError(error.message), reconnect()),
    })
    void copilotkit.connectAgent({ agent })
    return unsubscribe
  }, [agent, copilotkit])
  const run = (messages: Message[]) => {
    agent.setMessages(messages)
    void copilotkit.runAgent({ agent })
  }
  const say = (content: string) => run([...agent.messages, { id: crypto.randomUUID(), role: 'user', content }])
  const lastQuestion = agent.messages.findLastIndex(({ role }) => role === 'user')
  const edit = (place: number) =>
    run([...agent.messages.slice(0, place), { id: agent.messages[place]!.id, role: 'user', content: 'Better' }])
  const last = agent.messages.at(-1)
  return (
    <form action={data => say(String(data.get('text')))}>
      <ol>
        {agent.messages.map((message, place) => (
          <li key={message.id}>
            {shown(message)}
            {message.role === 'user' && <button type="button" onClick={() => edit(place)}>Edit</button>}
          </li>
        ))}
      </ol>
      <input name="text" aria-label="Message" /> <button>Send</button>
      <button type="button" onClick={() => copilotkit.stopAgent({ agent })}>Stop</button>
      <button type="button" onClick={() => run(agent.messages.slice(0, lastQuestion + 1))}>Regenerate</button>
      <p id="log">{agent.messages.map(shown).filter(Boolean).join(' | ')}</p>
      <p id="answer">{last?.role === 'assistant' && shown(last)}</p>
      <p id="status">{agent.isRunning ? 'streaming' : 'ready'}</p>
      <p id="error">{error}</p>
    </form>
  )
}

const shown = (message: Message) =>
  message.role === 'assistant'
    ? (message.content ?? '') + (message.toolCalls ?? []).map(call => `[${call.function.name}]`).join('')
    : message.role === 'user' && String(message.content)

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <CopilotKitProvider selfManagedAgents={{ default: latchkey }}>
      <Chat />
    </CopilotKitProvider>
  </StrictMode>,
)
