// CopilotKit: its Node runtime in front of the service, and its client as its React components use it.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { HttpAgent } from '@ag-ui/client'
import { CopilotKitCore } from '@copilotkit/core'
import { CopilotRuntime } from '@copilotkit/runtime/v2'
import { createCopilotNodeListener } from '@copilotkit/runtime/v2/node'
import { plain, until } from './scenario.mjs'

globalThis.window ??= globalThis // the client connects to its runtime in browsers only

const REMINDER = ['add_task', { title: 'Buy milk' }]

/** A runtime, which forwards the `Authorization` of the page. */
async function withRuntime({ base }, test) {
  const agents = { default: new HttpAgent({ url: `${base}/ag-ui` }) }
  const listener = createCopilotNodeListener({ runtime: new CopilotRuntime({ agents }), basePath: '/api/copilotkit' })
  const server = createServer(listener)
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  try {
    return await test(`http://127.0.0.1:${server.address().port}/api/copilotkit`)
  } finally {
    server.close()
    server.closeAllConnections()
  }
}

/** A page: the client and its agent in a thread. */
async function newPage({ headers }, runtimeUrl, threadId = randomUUID()) {
  const core = new CopilotKitCore({ runtimeUrl, headers })
  const agent = await until(() => core.runtimeConnectionStatus === 'connected' && core.getAgent('default'))
  agent.threadId = threadId
  const errors = []
  core.subscribe({ onError: ({ error, code }) => void errors.push({ code, message: error.message }) })
  const run = parameters => core.runAgent({ agent, ...parameters })
  const say = (text, parameters) => {
    agent.addMessage({ id: randomUUID(), role: 'user', content: text })
    return run(parameters)
  }
  return { core, agent, errors, run, say, stop: () => core.stopAgent({ agent }) }
}

const texts = ({ agent }) => agent.messages.map(({ role, content }) => `${role}: ${content ?? ''}`)
const shows = (page, text) => until(() => texts(page).at(-1) === `assistant: ${text}`)

export const two_turns = scenario =>
  withRuntime(scenario, async runtimeUrl => {
    const page = await newPage(scenario, runtimeUrl)
    await scenario.model.script({ says: ['On', 'e'] }, { calls: [REMINDER] }, { says: ['Two'] })
    await page.say('First')
    await page.say('Second')
    const [first, one, second, call, result, two] = plain(page.agent.messages)
    assert.deepEqual([first.content, one.content, second.content, two.content], ['First', 'One', 'Second', 'Two'])
    assert.equal(call.toolCalls[0].function.name, 'add_task')
    assert.equal(result.toolCallId, call.toolCalls[0].id)
    assert.equal((await scenario.turns()).length, 2)
    assert.deepEqual(page.errors, [])
  })

/** The runtime has been restarted and remembers nothing: a run without a message loads the thread. */
export const reload = async scenario => {
  const { model } = scenario
  await model.script({ says: ['One'] }, { says: ['Half ', 'of ', 'it.'], paced: true })
  const before = await withRuntime(scenario, async runtimeUrl => {
    const page = await newPage(scenario, runtimeUrl)
    await page.say('First')
    const saying = page.say('Second')
    await model.next(1)
    await shows(page, 'Half ')
    page.stop()
    await saying
    return page
  })
  await withRuntime(scenario, async runtimeUrl => {
    const page = await newPage(scenario, runtimeUrl, before.agent.threadId)
    const loading = page.run()
    await shows(page, 'Half ')
    await model.release()
    await loading
    assert.deepEqual(texts(page), ['user: First', 'assistant: One', 'user: Second', 'assistant: Half of it.'])
    assert.deepEqual(page.errors, [])
  })
}

export const failure = scenario =>
  withRuntime(scenario, async runtimeUrl => {
    const page = await newPage(scenario, runtimeUrl)
    await scenario.model.script({ fails_with: 400, message: 'no such model' }, { says: ['Now.'] })
    await page.say('Hi').catch(() => {})
    assert.ok(page.errors.length)
    assert.match(page.errors[0].message, /model/)
    await page.run()
    assert.deepEqual(texts(page), ['user: Hi', 'assistant: Now.'])
  })

export const stop = scenario =>
  withRuntime(scenario, async runtimeUrl => {
    const { model } = scenario
    const page = await newPage(scenario, runtimeUrl)
    await model.script({ says: ['Never ', 'ends'], paced: true }, { says: ['Here.'] })
    const saying = page.say('Count')
    await model.next(1)
    await shows(page, 'Never ')
    page.stop()
    await saying
    await page.say('Stop. Where are you?')
    assert.deepEqual(texts(page).slice(-2), ['user: Stop. Where are you?', 'assistant: Here.'])
    assert.deepEqual((await scenario.turns()).map(({ status }) => status), ['cancelled', 'completed'])
  })

/** What `useInterrupt` sends: the run has the id of the interrupted one. */
export const approval = scenario =>
  withRuntime(scenario, async runtimeUrl => {
    const { model, api } = scenario
    for (const [payload, left] of [[{ approved: true }, []], [{ approved: false }, ['Milk']]]) {
      const page = await newPage(scenario, runtimeUrl)
      const { id } = await api('POST', 'tasks', { title: 'Milk' })
      await model.script({ says: ['I delete it.'], calls: [['delete_task', { task_id: id }]] }, { says: ['So be it.'] })
      const finished = []
      page.agent.subscribe({ onRunFinishedEvent: event => void finished.push(event) })
      await page.say('Delete it', { forwardedProps: { assistant: 'careful' } })
      const [{ outcome, interrupts, input }] = finished
      assert.equal(outcome, 'interrupt')
      const resume = interrupts.map(({ id }) => ({ interruptId: id, status: 'resolved', payload }))
      await page.run({ resume, runId: input.runId })
      assert.deepEqual((await api('GET', 'tasks')).items.map(({ title }) => title), left)
      assert.deepEqual(page.agent.messages.map(({ role }) => role), ['user', 'assistant', 'tool', 'assistant'])
      assert.equal(texts(page).at(-1), 'assistant: So be it.')
      assert.deepEqual(page.errors, [])
    }
  })

export { newPage, texts }
