// OpenAI's SDK in a page: `dangerouslyAllowBrowser` with the token of the user.
import assert from 'node:assert/strict'
import { shows } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function text({ open, model }) {
  await model.script({ says: WORDS })
  const tab = await open('openai')
  await press(tab, 'Send', 'Count')
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#status', 'completed')
}

export async function tool({ open, model, api }) {
  await model.script({ calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  const tab = await open('openai')
  await press(tab, 'Send', 'Add milk')
  await shows(tab, '#status', 'completed')
  await shows(tab, '#tools', 'add_task')
  await shows(tab, '#log', 'Add milk | [add_task] | Added.')
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
}

export async function resume_after_reload({ open, model }) {
  await model.script({ says: ['Hello.'] }, { says: WORDS, paced: true })
  const tab = await open('openai')
  await press(tab, 'Send', 'Hello')
  await shows(tab, '#status', 'completed')
  await press(tab, 'Send', 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.reload()
  await shows(tab, '#log', 'Hello | Hello. | Count')
  await shows(tab, '#answer', 'one two')
  await model.release()
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#status', 'completed')
}

export async function stop_and_another_message({ open, model }) {
  await model.script({ says: WORDS, paced: true }, { says: ['Yes.'] })
  const tab = await open('openai')
  await press(tab, 'Send', 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await press(tab, 'Stop')
  await shows(tab, '#status', 'cancelled')
  await press(tab, 'Send', 'Are you there?')
  await model.release()
  await shows(tab, '#log', 'Count | one two | Are you there? | Yes.')
}

export async function edit_replaces_last_response({ open, model }) {
  await model.script({ says: ['Hello.'] }, { says: ['Two.'] }, { says: ['Three.'] })
  const tab = await open('openai')
  await press(tab, 'Send', 'Hello')
  await shows(tab, '#status', 'completed')
  await press(tab, 'Send', 'One and one')
  await shows(tab, '#log', 'Hello | Hello. | One and one | Two.')
  await press(tab, 'Replace', 'One and two')
  await shows(tab, '#log', 'Hello | Hello. | One and two | Three.')
  await tab.reload()
  await shows(tab, '#log', 'Hello | Hello. | One and two | Three.')
  const messages = (await model.requests()).at(-1).filter(([role]) => role === 'user')
  assert.deepEqual(messages, [['user', 'Hello'], ['user', 'One and two']])
}

export async function failure_and_retry({ open, model }) {
  await model.script({ fails_with: 401, message: 'no key' }, { says: ['Hello.'] })
  const tab = await open('openai')
  await press(tab, 'Send', 'Hello')
  await shows(tab, '#status', /^failed .*\(model-unavailable\)$/)
  await press(tab, 'Send', 'Hello again')
  await shows(tab, '#log', 'Hello | Hello again | Hello.')
}

export async function refusal({ open, model, consoleErrors }) {
  await model.script()
  const tab = await open('openai')
  await press(tab, 'Send', ' ')
  await shows(tab, '#status', /^refused 422 /)
  assert.equal(consoleErrors.length, 1) // the browser's own line for the status: the SDK did not send it again
}

export async function two_tabs({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const first = await open('openai')
  await press(first, 'Send', 'Count')
  await model.next(1)
  await shows(first, '#answer', 'one')
  const second = await open('openai', { chat: await first.evaluate(() => window.latchkey.chat) })
  await shows(second, '#answer', 'one')
  await model.release()
  for (const tab of [first, second]) {
    await shows(tab, '#answer', WORDS.join(''))
    await shows(tab, '#status', 'completed')
  }
}

export async function killed_service({ open, model, service }) {
  await model.script({ says: WORDS, paced: true }, { says: ['five ', 'six'] })
  const tab = await open('openai')
  await press(tab, 'Send', 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await service.start()
  await shows(tab, '#answer', 'five six') // another process goes on, and the text of the broken step is withdrawn
  await shows(tab, '#status', 'completed')
  await shows(tab, '#log', 'Count | five six')
}

async function press(tab, button, message) {
  if (message !== undefined) await tab.getByLabel('Message').fill(message)
  await tab.getByRole('button', { name: button }).click()
}
