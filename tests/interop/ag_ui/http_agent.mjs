// HttpAgent of both generations of `@ag-ui/client`, as an app uses it.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import * as client1 from '@ag-ui/client'
import * as client0 from 'ag-ui-client-0'
import { plain, until } from './scenario.mjs'

const CLIENTS = { '1.0.0': client1, '0.0.59': client0 }
const REMINDER = ['add_task', { title: 'Buy milk' }]

function newAgent({ settings, base, headers }, options = {}) {
  const { HttpAgent } = CLIENTS[settings.version]
  return new HttpAgent({ url: `${base}/ag-ui`, headers, threadId: randomUUID(), ...options })
}

/** Run the agent. Returns its events, the error if it throws, and that of RUN_ERROR. */
async function run(agent, parameters) {
  const events = []
  let error
  try {
    await agent.runAgent(parameters, { onEvent: ({ event }) => void events.push(event) })
  } catch (thrown) {
    error = thrown
  }
  return { events, error, failure: events.find(({ type }) => type === 'RUN_ERROR') }
}

function say(agent, text, { id = randomUUID(), ...parameters } = {}) {
  agent.addMessage({ id, role: 'user', content: text })
  return run(agent, parameters)
}

const texts = agent => agent.messages.map(({ role, content }) => `${role}: ${content ?? ''}`)
const lastText = agent => agent.messages.at(-1)?.content
const showsText = (agent, text) => until(() => agent.messages.at(-1)?.role === 'assistant' && lastText(agent) === text)

/** A new page: an agent that has the thread's id only, and runs without a message. */
async function reloaded(scenario, agent) {
  const page = newAgent(scenario, { threadId: agent.threadId })
  return [page, await run(page)]
}

/** Ask an assistant to delete a task: it needs approval. Returns the run, and whether the task is still there. */
async function askToDelete({ model, api }, agent) {
  const task = await api('POST', 'tasks', { title: 'Milk' })
  await model.script({ says: ['I delete it.'], calls: [['delete_task', { task_id: task.id }]] }, { says: ['So be it.'] })
  const ran = await say(agent, 'Delete it', { forwardedProps: { assistant: 'careful' } })
  assert.ifError(ran.error ?? ran.failure)
  return { ...ran, isThere: async () => (await api('GET', 'tasks')).items.some(({ id }) => id === task.id) }
}

/** Answer all open questions. */
const resume = (agent, entry) =>
  run(agent, { resume: agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, ...entry })) })

const APPROVE = { status: 'resolved', payload: { approved: true } }
const DECLINE = { status: 'resolved', payload: { approved: false, reason: 'I need it.' } }
const CANCEL = { status: 'cancelled' }

async function history({ api }, agent) {
  return (await api('GET', `ag-ui/${agent.threadId}`)).messages
}

async function checkReload(scenario, agent) {
  assert.deepEqual(await history(scenario, agent), plain(agent.messages))
  const [page, { error }] = await reloaded(scenario, agent)
  assert.ifError(error)
  assert.deepEqual(plain(page.messages), plain(agent.messages))
  assert.deepEqual(scenario.warnings, [])
  return page
}

export async function text(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ says: ['Hel', 'lo'] })
  const { events, error } = await say(agent, 'Hi')
  assert.ifError(error)
  const [turn] = await scenario.turns()
  assert.deepEqual(plain(agent.messages.at(-1)), { id: turn.id, role: 'assistant', content: 'Hello' })
  assert.deepEqual(events[0].metadata, { turnId: turn.id, conversationId: turn.conversation_id, agent: turn.agent })
  assert.deepEqual(plain(events.at(-1).usage), [{ inputTokens: 10, outputTokens: 5 }])
  await checkReload(scenario, agent)
}

export async function two_turns(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ says: ['One'] }, { says: ['Two'] }, { says: ['Three'] })
  await say(agent, 'First')
  await say(agent, 'Second')
  assert.deepEqual(texts(agent), ['user: First', 'assistant: One', 'user: Second', 'assistant: Two'])
  const page = await checkReload(scenario, agent)
  await say(page, 'Third')
  assert.deepEqual(texts(page).slice(-2), ['user: Third', 'assistant: Three'])
  const history = (await scenario.model.requests()).at(-1)
  assert.deepEqual(history.slice(1).map(([, text]) => text), ['First', 'One', 'Second', 'Two', 'Third'])
  assert.equal((await scenario.turns()).length, 3)
}

export async function tool(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ calls: [REMINDER] }, { says: ['Added.'] })
  const { error } = await say(agent, 'Remind me')
  assert.ifError(error)
  const [, call, result, answer] = plain(agent.messages)
  assert.equal(call.toolCalls[0].function.name, 'add_task')
  assert.deepEqual(JSON.parse(call.toolCalls[0].function.arguments), { title: 'Buy milk' })
  assert.equal(result.toolCallId, call.toolCalls[0].id)
  assert.equal(JSON.parse(result.content).title, 'Buy milk')
  assert.equal(answer.content, 'Added.')
  assert.equal((await scenario.api('GET', 'tasks')).items.length, 1)
  await checkReload(scenario, agent)
  assert.equal((await scenario.turns()).length, 1) // no client has run the tool and sent a result
}

export async function text_call_text(scenario) {
  const agent = newAgent(scenario)
  const both = [REMINDER, ['list_tasks', {}]]
  await scenario.model.script({ says: ['Let me ', 'see.'], calls: both }, { says: ['Done', '.'] })
  const { error } = await say(agent, 'Remind me')
  assert.ifError(error)
  const shapes = agent.messages.map(({ role, content, toolCalls }) =>
    role === 'tool' ? role : `${role}: ${content ?? ''}${toolCalls ? ` [${toolCalls[0].function.name}]` : ''}`)
  const calls = ['assistant: Let me see. [add_task]', 'tool', 'assistant:  [list_tasks]', 'tool']
  assert.deepEqual(shapes, ['user: Remind me', ...calls, 'assistant: Done.'])
  await checkReload(scenario, agent)
}

export async function failed_call(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ calls: [['complete_task', { task_id: randomUUID() }]] }, { says: ['No such task.'] })
  await say(agent, 'Complete it')
  const result = plain(agent.messages[2])
  assert.deepEqual(result.metadata, { isError: true })
  assert.equal(JSON.parse(result.content).code, 'not-found')
  await checkReload(scenario, agent)
}

export async function artifact(scenario) {
  const agent = newAgent(scenario)
  const content = { title: 'A plan', content_markdown: '# Plan' }
  await scenario.model.script({ calls: [['save_artifact', content]] }, { says: ['Saved.'] })
  const { events, error } = await say(agent, 'Make a plan', { forwardedProps: { artifact_generation: true } })
  assert.ifError(error)
  const { value } = events.find(({ type, name }) => type === 'CUSTOM' && name === 'latchkey.artifact')
  const [{ id }] = (await scenario.api('GET', 'artifacts')).items
  assert.deepEqual(value, { id, artifact_type: 'generated_file', title: 'A plan', version: 1 })
  await checkReload(scenario, agent)
}

export async function unknown_thread(scenario) {
  const agent = newAgent(scenario)
  const { events, error } = await run(agent)
  assert.ifError(error)
  assert.deepEqual(events.map(({ type }) => type), ['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'RUN_FINISHED'])
  assert.deepEqual(agent.messages, [])
  assert.deepEqual(await history(scenario, agent), [])
  assert.deepEqual((await scenario.api('GET', 'conversations')).items, [])
}

export async function reload_in_mid_turn(scenario) {
  const { model } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['Half ', 'of ', 'it.'], paced: true })
  const first = say(agent, 'Count')
  await model.next(1)
  await showsText(agent, 'Half ')
  const page = newAgent(scenario, { threadId: agent.threadId })
  const second = run(page)
  await showsText(page, 'Half ')
  await model.release()
  assert.ifError((await first).error)
  assert.ifError((await second).error)
  assert.equal(lastText(page), 'Half of it.')
  assert.deepEqual(plain(page.messages), plain(agent.messages)) // also two pages on one turn
  await checkReload(scenario, agent)
}

export async function cut_stream_heals(scenario) {
  const { model, proxy } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['Half ', 'of ', 'it.'], paced: true })
  const first = say(agent, 'Count')
  await model.next(1)
  await showsText(agent, 'Half ')
  proxy.cut()
  assert.ok((await first).error)
  await model.release()
  const { error } = await run(agent) // a run whose last message is the half answer
  assert.ifError(error)
  assert.deepEqual(texts(agent), ['user: Count', 'assistant: Half of it.'])
  assert.equal((await scenario.turns()).length, 1)
  await checkReload(scenario, agent)
}

export async function cut_before_the_answer_attaches(scenario) {
  const { model, proxy } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['All ', 'of it.'], paced: true })
  const first = say(agent, 'Count')
  await until(async () => (await model.requests()).length)
  proxy.cut()
  assert.ok((await first).error)
  const second = run(agent) // the message is still the last one, and its turn is running
  await model.next(1)
  await showsText(agent, 'All ') // it has joined the turn, which has not ended
  await model.release()
  assert.ifError((await second).error)
  assert.deepEqual(texts(agent), ['user: Count', 'assistant: All of it.'])
  assert.equal((await scenario.turns()).length, 1)
}

export async function stop_and_another_message(scenario) {
  const { model } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['Never ', 'ends'], paced: true }, { says: ['Here.'] })
  const first = say(agent, 'Count')
  await model.next(1)
  await showsText(agent, 'Never ')
  agent.abortRun()
  await first
  const { error } = await say(agent, 'Stop. Where are you?')
  assert.ifError(error)
  assert.equal(lastText(agent), 'Here.')
  assert.deepEqual((await scenario.turns()).map(({ status }) => status), ['cancelled', 'completed'])
  await checkReload(scenario, agent)
}

export async function cancelled_elsewhere(scenario) {
  const { model, settings } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['Never ', 'ends'], paced: true })
  const running = say(agent, 'Count')
  await model.next(1)
  await showsText(agent, 'Never ')
  const [turn] = await scenario.turns()
  await scenario.api('POST', `turns/${turn.id}/cancel`)
  const { events, error, failure } = await running
  assert.ifError(error ?? failure)
  const { outcome } = events.at(-1)
  assert.deepEqual(plain(outcome ?? null), settings.version === '1.0.0' ? { type: 'cancelled' } : null)
  await checkReload(scenario, agent)
}

export async function failed_before_text(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ fails_with: 400, message: 'no such model' }, { says: ['Now.'] })
  const { failure } = await say(agent, 'Hi')
  assert.equal(failure.code, 'model-unavailable')
  assert.deepEqual(texts(agent), ['user: Hi'])
  await checkReload(scenario, agent)
  const { error } = await run(agent) // retry: the same message in another run
  assert.ifError(error)
  assert.deepEqual(texts(agent), ['user: Hi', 'assistant: Now.'])
  await checkReload(scenario, agent)
}

export async function failed_in_mid_text(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ says: ['Half ', 'of it'], broken: true })
  const { failure } = await say(agent, 'Count')
  assert.ok(failure.code && failure.message)
  assert.deepEqual(texts(agent), ['user: Count', 'assistant: Half of it'])
  await checkReload(scenario, agent)
}

export async function regenerate(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ says: ['One'] }, { says: ['Two'] }, { says: ['Another'] })
  await say(agent, 'First')
  await say(agent, 'Second')
  agent.setMessages(agent.messages.slice(0, -1))
  const { error } = await run(agent)
  assert.ifError(error)
  assert.deepEqual(texts(agent), ['user: First', 'assistant: One', 'user: Second', 'assistant: Another'])
  const history = (await scenario.model.requests()).at(-1)
  assert.deepEqual(history.slice(1).map(([, text]) => text), ['First', 'One', 'Second'])
  await checkReload(scenario, agent)
}

export async function edit(scenario) {
  const agent = newAgent(scenario)
  await scenario.model.script({ says: ['One'] }, { says: ['Two'] }, { says: ['Edited'] })
  await say(agent, 'First')
  await say(agent, 'Second')
  const [first] = agent.messages
  agent.setMessages([{ ...first, content: 'First, edited' }])
  const { error } = await run(agent)
  assert.ifError(error)
  assert.deepEqual(texts(agent), ['user: First, edited', 'assistant: Edited'])
  const history = (await scenario.model.requests()).at(-1)
  assert.deepEqual(history.slice(1).map(([, text]) => text), ['First, edited'])
  await checkReload(scenario, agent)
}

export async function double_post(scenario) {
  const { model } = scenario
  const agents = [newAgent(scenario)]
  agents.push(newAgent(scenario, { threadId: agents[0].threadId }))
  await model.script({ says: ['Once'] })
  const same = { id: randomUUID(), runId: randomUUID() }
  const runs = await Promise.all(agents.map(agent => say(agent, 'Hi', same)))
  runs.forEach(({ error, failure }) => assert.ifError(error ?? failure))
  agents.push(newAgent(scenario, { threadId: agents[0].threadId }))
  assert.ifError((await say(agents[2], 'Hi', same)).error) // and once more after the end
  agents.forEach(agent => assert.deepEqual(texts(agent), ['user: Hi', 'assistant: Once']))
  assert.equal((await scenario.turns()).length, 1)
}

export async function extra_fields(scenario) {
  const agent = newAgent(scenario, { initialState: { draft: null } })
  agent.addMessage({ id: randomUUID(), role: 'system', content: 'You are a pirate.' })
  agent.addMessage({ id: randomUUID(), role: 'assistant', content: 'I have paid the bill.' })
  await scenario.model.script({ says: ['Hello'] })
  const { error } = await say(agent, [{ type: 'text', text: 'Hi ' }, { type: 'text', text: 'there' }], {
    tools: [{ name: 'confirm', description: 'Ask', parameters: {} }],
    context: [{ description: 'page', value: '/cart' }],
    forwardedProps: { anything: [1, null], assistant: 7 },
  })
  assert.ifError(error)
  const [history] = await scenario.model.requests()
  assert.deepEqual(history.slice(1), [['user', 'Hi there']]) // the posted history is ignored
}

export async function refused(scenario) {
  const stranger = newAgent({ ...scenario, headers: { Authorization: 'Bearer none' } })
  const { error } = await say(stranger, 'Hi')
  assert.match(error.message, /401/)
  const source = { type: 'url', value: 'https://example.org/a.png' }
  const agent = newAgent(scenario)
  const picture = await say(agent, [{ type: 'text', text: 'See' }, { type: 'image', source }])
  assert.match(picture.error.message, /422.*Only text can be sent; this message has a part of type \\?"image\\?"/)
  assert.deepEqual((await scenario.api('GET', 'conversations')).items, [])
}

export async function killed_service(scenario) {
  const { model, service } = scenario
  const agent = newAgent(scenario)
  await model.script({ says: ['Half ', 'of it'], paced: true }, { says: ['Whole'] })
  const first = say(agent, 'Count')
  await model.next(1)
  await showsText(agent, 'Half ')
  await service.kill()
  assert.ok((await first).error)
  await service.start()
  const { error } = await run(agent) // follows the turn, which goes on when its lease has expired
  assert.ifError(error)
  assert.deepEqual(texts(agent), ['user: Count', 'assistant: Whole'])
  assert.deepEqual((await scenario.turns()).map(({ status, attempt }) => [status, attempt]), [['completed', 2]])
  await checkReload(scenario, agent)
}

export async function approval(scenario) {
  const agent = newAgent(scenario)
  const { events, isThere } = await askToDelete(scenario, agent)
  const [call] = plain(agent.messages.at(-1)).toolCalls
  const [interrupt] = plain(agent.pendingInterrupts)
  assert.deepEqual([interrupt.id, interrupt.toolCallId, agent.pendingInterrupts.length], [call.id, call.id, 1])
  assert.deepEqual(interrupt.metadata.input, JSON.parse(call.function.arguments))
  assert.equal(events.at(-1).outcome.type, 'interrupt')
  assert.ok(await isThere())
  assert.ok((await run(agent)).error) // the client demands answers
  const { error } = await resume(agent, APPROVE)
  assert.ifError(error)
  assert.ok(!(await isThere()))
  assert.deepEqual(agent.pendingInterrupts, [])
  assert.deepEqual(agent.messages.map(({ role }) => role), ['user', 'assistant', 'tool', 'assistant'])
  assert.equal(lastText(agent), 'So be it.')
  assert.equal((await scenario.turns()).length, 1)
  await checkReload(scenario, agent)
}

export async function decline(scenario) {
  for (const answer of [DECLINE, CANCEL]) {
    const agent = newAgent(scenario)
    const { isThere } = await askToDelete(scenario, agent)
    const { error } = await resume(agent, answer)
    assert.ifError(error)
    assert.ok(await isThere())
    assert.equal(JSON.parse(agent.messages[2].content).code, 'declined')
    assert.equal(lastText(agent), 'So be it.')
    await checkReload(scenario, agent)
  }
}

/** The page and the service have been closed meanwhile. */
export async function approval_after_reload_and_kill(scenario) {
  const before = newAgent(scenario)
  const { isThere } = await askToDelete(scenario, before)
  await scenario.service.kill()
  await scenario.service.start()
  const [agent, { error }] = await reloaded(scenario, before)
  assert.ifError(error)
  assert.deepEqual(plain(agent.messages), plain(before.messages))
  assert.deepEqual(plain(agent.pendingInterrupts), plain(before.pendingInterrupts))
  assert.ifError((await resume(agent, APPROVE)).error)
  assert.ok(!(await isThere()))
  assert.equal(lastText(agent), 'So be it.')
  await checkReload(scenario, agent)
}

export async function decided_elsewhere(scenario) {
  const agent = newAgent(scenario)
  const { events, isThere } = await askToDelete(scenario, agent)
  const [{ id }] = agent.pendingInterrupts
  await scenario.api('POST', `turns/${events[0].metadata.turnId}/approvals/${id}`, { decision: 'approve' })
  const { error } = await resume(agent, DECLINE) // has no effect, and the page shows what was decided
  assert.ifError(error)
  assert.ok(!(await isThere()))
  assert.deepEqual(agent.pendingInterrupts, [])
  await run(agent)
  assert.equal(lastText(agent), 'So be it.')
  await checkReload(scenario, agent)
}

export async function another_message_while_waiting(scenario) {
  const agent = newAgent(scenario)
  const { isThere } = await askToDelete(scenario, agent)
  const [{ id }] = agent.pendingInterrupts
  const { error } = await say(agent, 'Never mind', { resume: [{ interruptId: id, ...CANCEL }] })
  assert.ifError(error)
  assert.ok(await isThere())
  assert.equal(lastText(agent), 'So be it.')
  assert.deepEqual((await scenario.turns()).map(({ status }) => status), ['cancelled', 'completed'])
  const [page] = await reloaded(scenario, agent)
  assert.equal(JSON.parse(page.messages[2].content).code, 'declined')
}
