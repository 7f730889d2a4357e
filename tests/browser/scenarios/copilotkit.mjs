// CopilotKit's hooks under StrictMode.
import { shows } from '../driver/scenario.mjs'
import * as agUi from '../driver/ag_ui.mjs'

export async function text(scenario) {
  await agUi.text(scenario, 'copilotkit')
}

export async function tool(scenario) {
  await agUi.tool(scenario, 'copilotkit')
}

export async function resume_after_reload(scenario) {
  await agUi.resumeAfterReload(scenario, 'copilotkit')
}

export async function stop_and_another_message(scenario) {
  await agUi.stopAndAnotherMessage(scenario, 'copilotkit')
}

export async function edit(scenario) {
  await agUi.edit(scenario, 'copilotkit')
}

export async function regenerate(scenario) {
  await agUi.regenerate(scenario, 'copilotkit')
}

export async function failure_and_retry(scenario) {
  await agUi.failureAndRetry(scenario, 'copilotkit')
}

export async function two_tabs(scenario) {
  await agUi.twoTabs(scenario, 'copilotkit')
}

/** The page connects again until the service is back, and follows the turn there, which goes on. */
export async function killed_service({ open, model, service, pageErrors }) {
  await model.script({ says: agUi.WORDS, paced: true }, { says: ['Again.'] })
  const tab = await open('copilotkit')
  await agUi.send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await service.start()
  await shows(tab, '#log', 'Count | Again.')
  await shows(tab, '#error', '')
  pageErrors.length = 0 // HttpAgent lets the rejection of a broken stream escape
}
