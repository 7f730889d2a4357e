// A page without any library on the REST API. It proves the harness, and that plain `fetch` is enough.
import assert from 'node:assert/strict'
import { shows } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function text({ open, model }) {
  await model.script({ says: WORDS })
  const tab = await open('rest')
  await send(tab, 'Count')
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#status', 'completed')
}

export async function tool({ open, model, api }) {
  await model.script({ calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  const tab = await open('rest')
  await send(tab, 'Add milk')
  await shows(tab, '#status', 'completed')
  await shows(tab, '#tools', 'add_task')
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
}

export async function resume_after_reload({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const tab = await open('rest')
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await tab.reload()
  await shows(tab, '#answer', 'one two')
  await model.release()
  await shows(tab, '#answer', WORDS.join(''))
  await shows(tab, '#status', 'completed')
}

export async function two_tabs({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const first = await open('rest')
  await send(first, 'Count')
  await model.next(1)
  await shows(first, '#answer', 'one')
  const turn = await first.evaluate(() => sessionStorage.getItem('turn'))
  const second = await open('rest', { turn })
  await shows(second, '#answer', 'one')
  await model.release()
  for (const tab of [first, second]) {
    await shows(tab, '#answer', WORDS.join(''))
    await shows(tab, '#status', 'completed')
  }
}

export async function failure({ open, model }) {
  await model.script({ fails_with: 401, message: 'no key' })
  const tab = await open('rest')
  await send(tab, 'Count')
  await shows(tab, '#status', /^failed /)
}

export async function killed_service({ open, model, service }) {
  await model.script({ says: WORDS, paced: true }, { says: ['Once more: ', 'one.'] })
  const tab = await open('rest')
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, '#answer', 'one two')
  await service.kill()
  await service.start()
  await shows(tab, '#status', 'completed')
  await shows(tab, '#answer', 'Once more: one.')
}

async function send(tab, message) {
  await tab.getByLabel('Message').fill(message)
  await tab.getByRole('button', { name: 'Send' }).click()
}
