// Our own TypeScript client in a page.
import { shows } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function text_and_tool({ open, model }) {
  await model.script({ calls: [['add_task', { title: 'Milk' }]] }, { says: WORDS })
  const tab = await open('latchkey_client')
  await send(tab, 'Count')
  await shows(tab, '#status', 'turn.completed')
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#tools', 'add_task')
}

export async function resume_after_reload({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const tab = await open('latchkey_client')
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.reload()
  await shows(tab, '#answer', 'one two')
  await model.release()
  await shows(tab, '#answer', WORDS.join(''))
}

export async function killed_service({ open, model, service, consoleErrors }) {
  await model.script({ says: WORDS, paced: true }, { says: ['Again: ', 'one.'] })
  const tab = await open('latchkey_client')
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await service.start()
  await shows(tab, '#status', 'turn.completed')
  await shows(tab, '#answer', 'Again: one.')
  consoleErrors.length = 0
}

async function send(tab, text) {
  await tab.getByLabel('Message').fill(text)
  await tab.getByRole('button', { name: 'Send' }).click()
}
