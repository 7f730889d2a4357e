// Reduces event streams with the clients' own reducers, to their messages without the user's own.
import { createServer } from 'node:http'
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client'
import * as client1 from '@ag-ui/client'
import * as client0 from 'ag-ui-client-0'

/** Serve the streams of each place one after another: the runs of a turn that waits. */
async function served(runs, reduce) {
  const server = createServer((request, response) => {
    request.resume()
    const stream = runs[Number(request.url.slice(1))].shift()
    response.writeHead(200, { 'content-type': 'text/event-stream' }).end(stream)
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const reduced = []
  for (const place of runs.keys()) reduced.push(await reduce(`http://127.0.0.1:${server.address().port}/${place}`, runs[place]))
  server.close()
  server.closeAllConnections()
  return reduced
}

const agent = HttpAgent => ({ settings, warnings }) =>
  served(settings.runs, async (url, left) => {
    const agent = new HttpAgent({ url, threadId: 't1' })
    agent.addMessage({ id: '1', role: 'user', content: 'Hi' })
    await agent.runAgent({ runId: 'r1' })
    while (left.length) {
      const resume = agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: 'cancelled' }))
      await agent.runAgent({ runId: 'r1', resume })
    }
    if (warnings.length) throw new Error(warnings.join('\n'))
    return agent.messages.filter(({ role }) => role !== 'user')
  })

export const ag_ui_1 = agent(client1.HttpAgent)
export const ag_ui_0 = agent(client0.HttpAgent)

export const tanstack = ({ settings }) =>
  served(settings.runs, async url => {
    const chat = new ChatClient({ connection: fetchServerSentEvents(url), threadId: 't1', onError: () => {} })
    await chat.sendMessage('Hi')
    const answers = chat.getMessages().filter(({ role, parts }) => role !== 'user' && parts.length)
    return answers.map(({ id, role, parts }) => ({ id, role, parts }))
  })
