// Scenarios of pages that have the same controls: TanStack AI and CopilotKit.
import assert from 'node:assert/strict'
import { shows } from './scenario.mjs'

export const WORDS = ['one ', 'two ', 'three ', 'four']

export async function send(tab, message) {
  await shows(tab, '#status', 'ready')
  await tab.getByLabel('Message').fill(message)
  await tab.getByRole('button', { name: 'Send' }).click()
}

export async function text({ open, model }, page) {
  await model.script({ says: WORDS }, { says: ['Two.'] })
  const tab = await open(page)
  await send(tab, 'Count')
  await shows(tab, '#answer', 'one two three four')
  await send(tab, 'Again')
  await shows(tab, '#log', 'Count | one two three four | Again | Two.')
  await tab.reload()
  await shows(tab, '#log', 'Count | one two three four | Again | Two.')
}

export async function tool({ open, model, api }, page) {
  await model.script({ says: ['I add it. '], calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  const tab = await open(page)
  await send(tab, 'Add milk')
  await shows(tab, '#log', 'Add milk | I add it. [add_task] | Added.')
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
  await tab.reload()
  await shows(tab, '#log', 'Add milk | I add it. [add_task] | Added.')
  assert.equal((await model.requests()).length, 2)
}

export async function resumeAfterReload({ open, model }, page) {
  await model.script({ says: WORDS, paced: true })
  const tab = await open(page)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.reload()
  await shows(tab, '#log', 'Count | one two')
  await model.release()
  await shows(tab, '#log', 'Count | one two three four')
  await shows(tab, '#status', 'ready')
}

export async function stopAndAnotherMessage({ open, model, api }, page) {
  await model.script({ says: WORDS, paced: true }, { says: ['Yes.'] })
  const tab = await open(page)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.getByRole('button', { name: 'Stop' }).click()
  await send(tab, 'Are you there?')
  await shows(tab, '#log', 'Count | one two  | Are you there? | Yes.')
  const [{ id }] = (await api('GET', 'conversations')).items
  const statuses = (await api('GET', `conversations/${id}/turns`)).items.map(({ status }) => status)
  assert.deepEqual(statuses, ['completed', 'cancelled'])
}

export async function edit({ open, model }, page) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] }, { says: ['Three.'] })
  const tab = await open(page)
  await send(tab, 'First')
  await shows(tab, '#log', 'First | One.')
  await send(tab, 'Second')
  await shows(tab, '#log', 'First | One. | Second | Two.')
  await shows(tab, '#status', 'ready')
  await tab.getByRole('button', { name: 'Edit' }).first().click()
  await shows(tab, '#log', 'Better | Three.')
  await tab.reload()
  await shows(tab, '#log', 'Better | Three.')
  assert.deepEqual((await model.requests()).at(-1).slice(1), [['user', 'Better']])
}

export async function regenerate({ open, model }, page) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] })
  const tab = await open(page)
  await send(tab, 'First')
  await shows(tab, '#log', 'First | One.')
  await shows(tab, '#status', 'ready')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await shows(tab, '#log', 'First | Two.')
  await tab.reload()
  await shows(tab, '#log', 'First | Two.')
}

export async function failureAndRetry({ open, model }, page) {
  await model.script({ says: ['one ', 'two'], broken: true }, { says: ['Two.'] })
  const tab = await open(page)
  await send(tab, 'First')
  await shows(tab, '#error', /^The connection was lost/)
  await shows(tab, '#log', 'First | one two')
  await tab.reload()
  await shows(tab, '#log', 'First | one two')
  await shows(tab, '#status', 'ready')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await shows(tab, '#log', 'First | Two.')
  await shows(tab, '#error', '')
}

export async function twoTabs({ open, model }, page) {
  await model.script({ says: WORDS, paced: true }, { says: ['Two.'] })
  const first = await open(page, { chat: 'of two tabs' })
  await send(first, 'Count')
  await model.next(1)
  await shows(first, '#answer', 'one')
  const second = await open(page, { chat: 'of two tabs' })
  await shows(second, '#log', 'Count | one')
  await model.release()
  for (const tab of [first, second]) await shows(tab, '#log', 'Count | one two three four')
  await send(second, 'Second')
  await shows(second, '#log', 'Count | one two three four | Second | Two.')
  await first.reload()
  await shows(first, '#log', 'Count | one two three four | Second | Two.')
}
