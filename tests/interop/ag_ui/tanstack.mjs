// The client of TanStack AI with its server-sent events connection, as `useChat` of `@tanstack/ai-react` uses it.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client'
import { plain, until } from './scenario.mjs'

const REMINDER = ['add_task', { title: 'Buy milk' }]

function newChat({ base, headers }, { reconnect, body, ...options } = {}) {
  const connection = fetchServerSentEvents(`${base}/ag-ui`, { headers, body, reconnect: { delayMs: 10, ...reconnect } })
  const errors = []
  const chat = new ChatClient({ connection, threadId: `thread-${randomUUID()}`, onError: error => void errors.push(error), ...options })
  return Object.assign(chat, { errors })
}

const parts = chat => chat.getMessages().map(({ id, role, parts }) => plain({ id, role, parts }))
const textsOf = ({ parts }) => parts.filter(({ type }) => type === 'text').map(({ content }) => content).join('')
const texts = chat => chat.getMessages().map(message => `${message.role}: ${textsOf(message)}`)
const shows = (chat, text) => until(() => texts(chat).at(-1) === `assistant: ${text}`)

/** A new page: a client that has the thread's id only, and asks the service for its messages. */
function reloaded(scenario, chat, options = {}) {
  const page = newChat(scenario, { threadId: chat.threadId, persistence: true, ...options })
  page.attach() // as the hook does when it is mounted
  return page
}

async function checkReload(scenario, chat) {
  const page = reloaded(scenario, chat)
  await until(() => page.getMessages().length === chat.getMessages().length)
  assert.deepEqual(parts(page), parts(chat))
  return page
}

export async function two_turns(scenario) {
  const chat = newChat(scenario)
  await scenario.model.script({ says: ['On', 'e'] }, { says: ['Two'] }, { says: ['Three'] })
  await chat.sendMessage('First')
  await chat.sendMessage('Second')
  assert.deepEqual(texts(chat), ['user: First', 'assistant: One', 'user: Second', 'assistant: Two'])
  const page = await checkReload(scenario, chat)
  await page.sendMessage('Third')
  assert.deepEqual(texts(page).slice(-2), ['user: Third', 'assistant: Three'])
  assert.equal((await scenario.turns()).length, 3)
  assert.deepEqual(chat.errors, [])
}

export async function tool(scenario) {
  const chat = newChat(scenario)
  await scenario.model.script({ says: ['Let me see.'], calls: [REMINDER] }, { says: ['Added.'] })
  await chat.sendMessage('Remind me')
  const [, asking, answer] = parts(chat)
  assert.deepEqual(asking.parts.map(({ type }) => type), ['text', 'tool-call', 'tool-result'])
  assert.deepEqual(asking.parts[1].input, { title: 'Buy milk' })
  assert.equal(asking.parts[1].output.title, 'Buy milk')
  assert.deepEqual(answer.parts, [{ type: 'text', content: 'Added.' }])
  assert.equal((await scenario.api('GET', 'tasks')).items.length, 1)
  await checkReload(scenario, chat)
  assert.equal((await scenario.turns()).length, 1)
}

export async function cut_stream_reconnects(scenario) {
  const { model, proxy } = scenario
  const chat = newChat(scenario)
  await model.script({ says: ['one ', 'two ', 'three ', 'four'], paced: true })
  const sending = chat.sendMessage('Count')
  await model.next(1)
  await shows(chat, 'one ')
  proxy.cut()
  await model.next(1)
  await shows(chat, 'one two ')
  proxy.cut()
  await model.release()
  await sending
  assert.deepEqual(texts(chat), ['user: Count', 'assistant: one two three four'])
  assert.equal((await scenario.turns()).length, 1)
  assert.deepEqual(chat.errors, [])
  await checkReload(scenario, chat)
}

/** The client reconnects by itself, and the text that it has received is replaced. */
export async function killed_service(scenario) {
  const { model, service } = scenario
  const chat = newChat(scenario, { reconnect: { delayMs: 100, maxAttempts: 100 } })
  await model.script({ says: ['Half ', 'of it'], paced: true }, { says: ['Whole'] })
  const sending = chat.sendMessage('Count')
  await model.next(1)
  await shows(chat, 'Half ')
  await service.kill()
  await service.start()
  await sending
  assert.deepEqual(texts(chat), ['user: Count', 'assistant: Whole'])
  assert.deepEqual((await scenario.turns()).map(({ status, attempt }) => [status, attempt]), [['completed', 2]])
  assert.deepEqual(chat.errors, [])
  await checkReload(scenario, chat)
}

export async function reload_in_mid_turn(scenario) {
  const { model } = scenario
  const chat = newChat(scenario)
  await model.script({ says: ['one ', 'two ', 'three'], paced: true })
  const sending = chat.sendMessage('Count')
  await model.next(1)
  await shows(chat, 'one ')
  const page = reloaded(scenario, chat) // joins the run by its id
  await shows(page, 'one ')
  await model.release()
  await sending
  await shows(page, 'one two three')
  assert.deepEqual(parts(page), parts(chat))
}

export async function failed(scenario) {
  const chat = newChat(scenario)
  await scenario.model.script({ fails_with: 400, message: 'no such model' }, { says: ['Now.'] })
  await chat.sendMessage('Hi')
  assert.equal(chat.errors.length, 1)
  assert.match(chat.errors[0].message, /model/)
  await chat.reload() // retry
  assert.deepEqual(texts(chat), ['user: Hi', 'assistant: Now.'])
  await checkReload(scenario, chat)
}

export async function stop_and_another_message(scenario) {
  const { model } = scenario
  const chat = newChat(scenario)
  await model.script({ says: ['Never ', 'ends'], paced: true }, { says: ['Here.'] })
  const sending = chat.sendMessage('Count')
  await model.next(1)
  await shows(chat, 'Never ')
  chat.stop()
  await sending
  await chat.sendMessage('Stop. Where are you?')
  assert.deepEqual(texts(chat).slice(-2), ['user: Stop. Where are you?', 'assistant: Here.'])
  assert.deepEqual((await scenario.turns()).map(({ status }) => status), ['cancelled', 'completed'])
  await checkReload(scenario, chat)
}

export async function earlier_messages_are_loaded_in_pages(scenario) {
  const chat = newChat(scenario)
  await scenario.model.script({ says: ['One'] }, { says: ['Two'] }, { says: ['Three'] })
  for (const text of ['First', 'Second', 'Third']) await chat.sendMessage(text)
  const page = reloaded(scenario, chat, { history: { pageSize: 2 } })
  await until(() => page.getMessages().length)
  assert.deepEqual(parts(page), parts(chat).slice(2))
  await page.loadOlderMessages()
  assert.deepEqual(parts(page), parts(chat))
}

/** A chat in which the assistant has asked to delete two tasks. */
async function askedToDelete(scenario) {
  const { api, model } = scenario
  const chat = newChat(scenario, { body: { assistant: 'careful' } })
  const tasks = [await api('POST', 'tasks', { title: 'Milk' }), await api('POST', 'tasks', { title: 'Tea' })]
  const calls = tasks.map(({ id }) => ['delete_task', { task_id: id }])
  await model.script({ says: ['I delete them.'], calls }, { says: ['So be it.'] })
  await chat.sendMessage('Delete them')
  return chat
}

const callsOf = chat => chat.getMessages().flatMap(({ parts }) => parts).filter(({ type }) => type === 'tool-call')
const titles = async ({ api }) => (await api('GET', 'tasks')).items.map(({ title }) => title)

async function answerAndCheck(scenario, chat) {
  const [milk, tea] = callsOf(chat)
  await chat.addToolApprovalResponse({ id: milk.approval.id, approved: true })
  await chat.addToolApprovalResponse({ id: tea.approval.id, approved: false })
  await shows(chat, 'So be it.')
  await until(() => !chat.isLoading)
  assert.deepEqual(await titles(scenario), ['Tea'])
  assert.deepEqual(callsOf(chat).map(({ state, output }) => [state, output?.code]), [['complete', undefined], ['complete', 'declined']])
  assert.equal(chat.getInterrupts().length, 0)
  assert.deepEqual(chat.errors, [])
  assert.equal((await scenario.turns()).length, 1)
}

export async function approval(scenario) {
  const chat = await askedToDelete(scenario)
  assert.deepEqual(callsOf(chat).map(({ state }) => state), ['approval-requested', 'approval-requested'])
  assert.deepEqual(chat.getInterrupts().map(({ canResolve }) => canResolve), [true, true])
  await assert.rejects(chat.sendMessage('And now?')) // the client demands answers
  await answerAndCheck(scenario, chat)
  await chat.sendMessage('And now?').catch(() => {})
  assert.equal((await scenario.turns()).length, 2)
}

export async function approval_after_reload_and_kill(scenario) {
  const before = await askedToDelete(scenario)
  await scenario.service.kill()
  await scenario.service.start()
  const page = reloaded(scenario, before)
  await until(() => page.getInterrupts().length === 2)
  assert.deepEqual(parts(page), parts(before))
  await answerAndCheck(scenario, page)
}

/** The client reconnects by itself with the answer and the last event. */
export async function cut_stream_after_approval_reconnects(scenario) {
  const { api, model, proxy } = scenario
  const chat = newChat(scenario, { body: { assistant: 'careful' } })
  const { id } = await api('POST', 'tasks', { title: 'Milk' })
  await model.script({ calls: [['delete_task', { task_id: id }]] }, { says: ['one ', 'two ', 'three'], paced: true })
  await chat.sendMessage('Delete it')
  const [{ approval }] = callsOf(chat)
  const answering = chat.addToolApprovalResponse({ id: approval.id, approved: true })
  await model.next(1)
  await shows(chat, 'one ')
  proxy.cut()
  await model.release()
  await answering
  await shows(chat, 'one two three')
  assert.deepEqual(await titles(scenario), [])
  assert.deepEqual(chat.errors, [])
}
