// Tool calls that the console asks about, and their undo.
import assert from 'node:assert/strict'
import { seriousFindings } from '../driver/axe.mjs'
import { ANSWER, send, signedIn } from '../driver/console.mjs'
import { shows, until } from '../driver/scenario.mjs'

const QUESTION = '.message .question'

export async function approved_after_kill_and_undone(scenario) {
  const { api, model, service } = scenario
  const tab = await asked(scenario, { says: ['Deleted.'] })
  await shows(tab, '.turn .state >> nth=0', 'waiting')
  await service.kill()
  await service.start()
  await tab.getByRole('button', { name: 'Approve' }).click()
  await shows(tab, ANSWER, /delete_task.*done.*Deleted\./s)
  await shows(tab, '.turn .state >> nth=0', 'completed')
  assert.equal(await tab.locator('.question').count(), 0)
  assert.deepEqual(await titles(api), [])
  assert.equal((await model.requests()).length, 2)
  await tab.reload()
  await shows(tab, ANSWER, /delete_task.*done.*Deleted\./s)
  await tab.getByRole('button', { name: 'Undo' }).click()
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('dialog').getByRole('button', { name: 'Undo' }).click()
  await shows(tab, '.turn header', /completed\s*undone/)
  assert.deepEqual(await titles(api), ['Milk'])
  assert.equal(await tab.getByRole('button', { name: 'Undo' }).count(), 0)
  await tab.locator('.turn summary', { hasText: 'Events' }).click()
  await shows(tab, '.events', /turn\.completed.*turn\.undone/s)
}

export async function undo_is_refused_after_a_change(scenario) {
  const { api, model } = scenario
  await model.script({ calls: [['add_task', { title: 'Bread' }]] }, { says: ['Added.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Add bread')
  await shows(tab, ANSWER, /Added\./)
  const { id } = (await api('GET', 'tasks')).items[0]
  await api('PATCH', `tasks/${id}`, { title: 'Rye bread' })
  await tab.getByRole('button', { name: 'Undo' }).click()
  await tab.getByRole('dialog').getByRole('button', { name: 'Undo' }).click()
  await shows(tab, 'dialog .conflicts', /^Rye bread .* was changed since$/)
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('button', { name: 'Keep' }).click()
  assert.deepEqual(await titles(api), ['Rye bread'])
}

export async function declined_with_a_reason(scenario) {
  const { api, model } = scenario
  const tab = await asked(scenario, { says: ['I keep it.'] })
  await tab.getByLabel('Reason').fill('I still need it')
  await tab.getByRole('button', { name: 'Decline' }).click()
  await shows(tab, ANSWER, /delete_task.*declined.*I keep it\./s)
  await shows(tab, '.ledger .call .state', 'declined')
  assert.deepEqual(await titles(api), ['Milk'])
  assert.match(JSON.stringify((await model.requests())[1]), /I still need it/)
  const live = await tab.locator('.messages').textContent()
  await tab.reload()
  await shows(tab, '.messages', live.trim())
}

export async function question_after_reload_by_keyboard(scenario) {
  const { api } = scenario
  const tab = await asked(scenario, { says: ['Deleted.'] })
  await shows(tab, '[role=status]:not(.notice)', /asks for your approval: Delete a to-do task/)
  await tab.reload()
  await shows(tab, `${QUESTION} dd`, /^Milk/)
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('button', { name: 'Approve' }).focus()
  await tab.keyboard.press('Enter')
  await shows(tab, '[role=status]:not(.notice)', /Deleted\.|Approved/)
  await shows(tab, ANSWER, /Deleted\./)
  assert.equal(await tab.evaluate(() => document.activeElement.className), 'thread')
  assert.deepEqual(await titles(api), [])
}

export async function decided_in_the_inbox(scenario) {
  const { api } = scenario
  const tab = await asked(scenario, { says: ['Deleted.'] })
  await shows(tab, '.nav-views .count', /^1/)
  await shows(tab, '.conversation-meta', 'asks')
  const inbox = await signedIn(scenario)
  await inbox.getByRole('link', { name: /^Approvals/ }).click()
  await shows(inbox, '.view .question h2', 'Delete a to-do task?')
  assert.deepEqual(await seriousFindings(inbox), [])
  await inbox.getByRole('button', { name: 'Approve' }).click()
  await shows(inbox, '.view .call summary', /Delete a to-do task\s*done/)
  assert.equal(await inbox.locator('.question, .count').count(), 0)
  assert.deepEqual(await titles(api), [])
  await shows(tab, ANSWER, /done.*Deleted\./s) // by itself
}

export async function further_message_declines(scenario) {
  const { api } = scenario
  const tab = await asked(scenario, { says: ['Never mind.'] })
  await send(tab, 'Leave it')
  await shows(tab, `${ANSWER} >> nth=1`, 'Never mind.')
  await until(async () => (await tab.locator('.question, .count').count()) === 0)
  await shows(tab, `${ANSWER} >> nth=0`, /delete_task.*declined.*Stopped/s)
  assert.deepEqual(await titles(api), ['Milk'])
}

export async function several_calls_are_decided_one_by_one(scenario) {
  const { api } = scenario
  const { tab, question } = await askedAboutTwo(scenario)
  await question('Bread').getByRole('button', { name: 'Approve' }).click()
  await until(async () => (await tab.locator(QUESTION).count()) === 1)
  assert.deepEqual(await titles(api), ['Milk'])
  await shows(tab, '.nav-views .count', /^1/)
  await question('Milk').getByRole('button', { name: 'Decline' }).click()
  await shows(tab, ANSWER, /declined.*done.*One of them\./s)
  assert.deepEqual(await titles(api), ['Milk'])
}

export async function one_of_several_calls_is_decided_elsewhere(scenario) {
  const { api } = scenario
  const { tab, question, tasks } = await askedAboutTwo(scenario)
  const { id, turn_id } = (await api('GET', 'approvals')).items.find(({ arguments: { task_id } }) => task_id === tasks[1].id)
  await api('POST', `turns/${turn_id}/approvals/${id}`, { decision: 'approve' })
  await shows(tab, '.message .call .state', 'done') // by itself
  assert.equal(await tab.locator(QUESTION).count(), 1)
  await question('Milk').getByRole('button', { name: 'Decline' }).click()
  await shows(tab, ANSWER, /declined.*done.*One of them\./s)
}

/** A tab in which the assistant asks whether it may delete “Milk” and “Bread”. */
async function askedAboutTwo(scenario) {
  const { api, model } = scenario
  const tasks = [await api('POST', 'tasks', { title: 'Milk' }), await api('POST', 'tasks', { title: 'Bread' })]
  await model.script({ calls: tasks.map(({ id }) => ['delete_task', { task_id: id }]) }, { says: ['One of them.'] })
  const tab = await signedIn(scenario)
  await tab.getByRole('combobox', { name: 'Assistant' }).selectOption('Careful')
  await send(tab, 'Delete both')
  const question = title => tab.locator(QUESTION, { hasText: title })
  await question('Milk').waitFor()
  await question('Bread').waitFor()
  return { tab, question, tasks }
}

export async function question_that_was_decided_elsewhere(scenario) {
  const { api } = scenario
  const tab = await asked(scenario, { says: ['I keep it.'] })
  await tab.route('**/approvals?**', route => route.abort()) // the page cannot see the decision
  await tab.route('**/conversations?**', route => route.abort())
  const { id, turn_id } = (await api('GET', 'approvals')).items[0]
  await api('POST', `turns/${turn_id}/approvals/${id}`, { decision: 'decline' })
  await tab.getByRole('button', { name: 'Approve' }).click()
  await shows(tab, `${QUESTION} .failure`, /declined/)
  await tab.unroute('**/approvals?**')
  await tab.unroute('**/conversations?**')
  await shows(tab, ANSWER, /declined.*I keep it\./s)
  await until(async () => (await tab.locator('.question, .count').count()) === 0)
  assert.deepEqual(await titles(api), ['Milk'])
}

/** A tab in which the assistant asks whether it may delete the task "Milk". `answer` is what the model says afterwards. */
async function asked(scenario, answer) {
  const { api, model } = scenario
  const task = await api('POST', 'tasks', { title: 'Milk' })
  await model.script({ calls: [['delete_task', { task_id: task.id }]] }, answer)
  const tab = await signedIn(scenario)
  await tab.getByRole('combobox', { name: 'Assistant' }).selectOption('Careful')
  await send(tab, 'Delete the milk')
  await shows(tab, `${QUESTION} h2`, 'Delete a to-do task?')
  await shows(tab, `${QUESTION} dd`, /^Milk/)
  assert.deepEqual(await titles(api), ['Milk'])
  return tab
}

async function titles(api) {
  return (await api('GET', 'tasks')).items.map(task => task.title)
}
