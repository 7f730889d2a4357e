// `useChat` of the Vercel AI SDK (ai 7 and @ai-sdk/react 4) under StrictMode.
import assert from 'node:assert/strict'
import { shows, until } from '../driver/scenario.mjs'

export const WORDS = ['one ', 'two ', 'three ', 'four']

export async function text({ open, model }, settings) {
  await model.script({ says: WORDS }, { says: ['Two.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'Count')
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#status', 'ready')
  await send(tab, 'Again')
  await shows(tab, '#log', 'Count | one two three four | Again | Two.')
}

export async function tool({ open, model, api }, settings) {
  await model.script({ says: ['I add it. '], calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'Add milk')
  await shows(tab, '#answer', 'I add it. [add_task] Added.')
  await shows(tab, '#status', 'ready')
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
  await tab.reload()
  await shows(tab, '#log', 'Add milk | I add it. [add_task] Added.')
  assert.equal((await model.requests()).length, 2)
}

export async function resume_after_reload({ open, model }, settings) {
  await model.script({ says: WORDS, paced: true })
  const tab = await open('use_chat', settings)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.reload()
  await shows(tab, '#log', 'Count | one two')
  await model.release()
  await shows(tab, '#log', 'Count | one two three four')
  await shows(tab, '#status', 'ready')
}

export async function stop_and_another_message({ open, model, api }, settings) {
  await model.script({ says: WORDS, paced: true }, { says: ['Yes.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.getByRole('button', { name: 'Stop' }).click()
  const [{ id }] = (await api('GET', 'conversations')).items
  await until(async () => (await api('GET', `conversations/${id}/turns`)).items[0].status === 'cancelled')
  await shows(tab, '#status', 'ready')
  await send(tab, 'Are you there?')
  await shows(tab, '#log', 'Count | one two  | Are you there? | Yes.')
}

export async function edit({ open, model }, settings) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] }, { says: ['Three.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'First')
  await shows(tab, '#log', 'First | One.')
  await send(tab, 'Second')
  await shows(tab, '#log', 'First | One. | Second | Two.')
  await tab.getByRole('button', { name: 'Edit' }).first().click()
  await shows(tab, '#log', 'Better | Three.')
  await tab.reload()
  await shows(tab, '#log', 'Better | Three.')
  assert.deepEqual((await model.requests()).at(-1).slice(1), [['user', 'Better']])
}

export async function regenerate({ open, model }, settings) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'First')
  await shows(tab, '#log', 'First | One.')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await shows(tab, '#log', 'First | Two.')
  await tab.reload()
  await shows(tab, '#log', 'First | Two.')
}

export async function failure_and_retry({ open, model }, settings) {
  await model.script({ says: ['one ', 'two'], broken: true }, { says: ['Two.'] })
  const tab = await open('use_chat', settings)
  await send(tab, 'First')
  await shows(tab, '#error', /^The connection was lost/)
  await shows(tab, '#log', 'First | one two')
  await tab.reload()
  await shows(tab, '#log', 'First | one two')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await shows(tab, '#log', 'First | Two.')
  await shows(tab, '#error', '')
}

export async function two_tabs({ open, model }) {
  await model.script({ says: WORDS, paced: true }, { says: ['Two.'] })
  const settings = { chat: 'of two tabs' }
  const first = await open('use_chat', settings)
  await send(first, 'Count')
  await model.next(1)
  await shows(first, '#answer', 'one')
  const second = await open('use_chat', settings)
  await shows(second, '#log', 'Count | one')
  await model.release()
  for (const tab of [first, second]) await shows(tab, '#log', 'Count | one two three four')
  await send(second, 'Second')
  await shows(second, '#log', 'Count | one two three four | Second | Two.')
  await first.reload()
  await shows(first, '#log', 'Count | one two three four | Second | Two.')
}

export async function killed_service({ open, model, service }) {
  await model.script({ says: WORDS, paced: true }, { says: ['five ', 'six'] })
  const tab = await open('use_chat')
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await shows(tab, '#error', /network/)
  await service.start()
  await shows(tab, '#log', 'Count | five six') // another process goes on, and the text of the broken step is withdrawn
  await shows(tab, '#error', '')
  await tab.reload()
  await shows(tab, '#log', 'Count | five six')
}

export async function approved_after_a_reload({ open, model, api }, settings) {
  const tab = await asked({ open, model, api }, settings)
  await tab.reload()
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task]')
  await tab.getByRole('button', { name: 'Approve' }).click()
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task] Done.')
  await shows(tab, '#status', 'ready')
  assert.deepEqual((await api('GET', 'tasks')).items, [])
  assert.equal((await model.requests()).length, 2)
}

export async function declined({ open, model, api }, settings) {
  const tab = await asked({ open, model, api }, settings)
  await tab.getByRole('button', { name: 'Decline' }).click()
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task] Done.')
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
}

export async function approved_after_kill({ open, model, api, service }, settings) {
  const tab = await asked({ open, model, api }, settings)
  await service.kill()
  await service.start()
  await tab.getByRole('button', { name: 'Approve' }).click()
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task] Done.')
  assert.deepEqual((await api('GET', 'tasks')).items, [])
}

export async function declined_by_a_further_message({ open, model, api }, settings) {
  const tab = await asked({ open, model, api }, settings)
  await send(tab, 'Coffee instead')
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task]  | Coffee instead | Done.')
  assert.equal(await tab.getByRole('button', { name: 'Approve' }).count(), 0)
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
}

/** A tab whose assistant asks before it deletes a task. */
async function asked({ open, model, api }, settings) {
  const { id } = await api('POST', 'tasks', { title: 'Milk' })
  await model.script({ says: ['I delete it. '], calls: [['delete_task', { task_id: id }]] }, { says: ['Done.'] })
  const tab = await open('use_chat', { ...settings, assistant: 'careful' })
  await send(tab, 'Delete milk')
  await shows(tab, '#log', 'Delete milk | I delete it. [delete_task]')
  await tab.getByRole('button', { name: 'Approve' }).waitFor()
  return tab
}

async function send(tab, message) {
  await until(async () => (await tab.locator('#status').textContent()) === 'ready')
  await tab.getByLabel('Message').fill(message)
  await tab.getByRole('button', { name: 'Send' }).click()
}
