// `useChat` of TanStack AI, which reconnects by itself, under StrictMode.
import assert from 'node:assert/strict'
import { shows } from '../driver/scenario.mjs'
import * as agUi from '../driver/ag_ui.mjs'

export async function text(scenario) {
  await agUi.text(scenario, 'tanstack')
}

export async function tool(scenario) {
  await agUi.tool(scenario, 'tanstack')
}

export async function resume_after_reload(scenario) {
  await agUi.resumeAfterReload(scenario, 'tanstack')
}

export async function stop_and_another_message(scenario) {
  await agUi.stopAndAnotherMessage(scenario, 'tanstack')
}

export async function edit(scenario) {
  await agUi.edit(scenario, 'tanstack')
}

export async function regenerate(scenario) {
  await agUi.regenerate(scenario, 'tanstack')
}

export async function failure_and_retry(scenario) {
  await agUi.failureAndRetry(scenario, 'tanstack')
}

export async function two_tabs(scenario) {
  await agUi.twoTabs(scenario, 'tanstack')
}

/** It reconnects until the service is back, and follows the turn there, which goes on. */
export async function killed_service({ open, model, service, api }) {
  await model.script({ says: agUi.WORDS, paced: true }, { says: ['Again.'] })
  const tab = await open('tanstack')
  await agUi.send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await service.start()
  await shows(tab, '#log', 'Count | Again.') // the client reconnects, and the turn goes on
  await shows(tab, '#error', '')
  const [{ id }] = (await api('GET', 'conversations')).items
  assert.deepEqual((await api('GET', `conversations/${id}/turns`)).items.map(({ status }) => status), ['completed'])
}

/** The page asks, also after a reload and the service's `kill -9`; the answers are sent once. */
export async function approval({ open, model, api, service }) {
  const tab = await open('tanstack', { assistant: 'careful' })
  const titles = async () => (await api('GET', 'tasks')).items.map(({ title }) => title)
  for (const [answer, left] of [['Approve', []], ['Decline', ['Milk']]]) {
    const { id } = await api('POST', 'tasks', { title: 'Milk' })
    await model.script({ says: ['I delete it. '], calls: [['delete_task', { task_id: id }]] }, { says: [`${answer}d.`] })
    await agUi.send(tab, 'Delete it')
    await tab.getByRole('button', { name: answer }).waitFor()
    await service.kill()
    await service.start()
    await tab.reload()
    await tab.getByRole('button', { name: answer }).click()
    await shows(tab, '#answer', `${answer}d.`)
    await shows(tab, '#error', '')
    assert.deepEqual(await titles(), left)
  }
  await tab.reload()
  const turns = ['Approved.', 'Declined.'].map(text => `Delete it | I delete it. [delete_task] | ${text}`)
  await shows(tab, '#log', turns.join(' | '))
  assert.equal(await tab.getByRole('button', { name: 'Approve' }).count(), 0)
}
