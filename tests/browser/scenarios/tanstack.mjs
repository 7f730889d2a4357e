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

/** It reconnects until the service is back, and reads there how the turn has ended. */
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
