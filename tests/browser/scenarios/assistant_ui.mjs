// assistant-ui with the AI SDK runtime, whose resumable streams the page sets up.
import assert from 'node:assert/strict'
import { until } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function text({ open, model }) {
  await model.script({ says: WORDS }, { says: ['Two.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'Count')
  await sees(tab, 'Count', 'one two three four')
  await send(tab, 'Again')
  await sees(tab, 'Count', 'one two three four', 'Again', 'Two.')
}

export async function tool({ open, model, api }) {
  await model.script({ says: ['I add it. '], calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'Add milk')
  await sees(tab, 'Add milk', /I add it\.\s*\[add_task\]\s*Added\./)
  assert.deepEqual((await api('GET', 'tasks')).items.map(task => task.title), ['Milk'])
  await tab.reload()
  await sees(tab, 'Add milk', /I add it\.\s*\[add_task\]\s*Added\./)
  assert.equal((await model.requests()).length, 2)
}

export async function resume_after_reload({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const tab = await open('assistant_ui')
  await send(tab, 'Count')
  await model.next(2)
  await sees(tab, 'Count', 'one two')
  await tab.reload()
  await sees(tab, 'Count', 'one two')
  await model.release()
  await sees(tab, 'Count', 'one two three four')
  await isReady(tab)
  await tab.reload()
  await sees(tab, 'Count', 'one two three four')
}

export async function stop_and_another_message({ open, model, api }) {
  await model.script({ says: WORDS, paced: true }, { says: ['Yes.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'Count')
  await model.next(2)
  await sees(tab, 'Count', 'one two')
  await tab.getByRole('button', { name: 'Stop' }).click()
  const [{ id }] = (await api('GET', 'conversations')).items
  await until(async () => (await api('GET', `conversations/${id}/turns`)).items[0].status === 'cancelled')
  await send(tab, 'Are you there?')
  await sees(tab, 'Count', 'one two', 'Are you there?', 'Yes.')
}

export async function edit({ open, model }) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] }, { says: ['Three.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'First')
  await sees(tab, 'First', 'One.')
  await send(tab, 'Second')
  await sees(tab, 'First', 'One.', 'Second', 'Two.')
  await isReady(tab)
  await tab.getByRole('button', { name: 'Edit' }).first().click()
  await tab.getByLabel('Edited message').fill('Better')
  await tab.getByRole('button', { name: 'Save' }).click()
  await sees(tab, 'Better', 'Three.')
  await tab.reload()
  await sees(tab, 'Better', 'Three.')
  assert.deepEqual((await model.requests()).at(-1).slice(1), [['user', 'Better']])
}

export async function regenerate({ open, model }) {
  await model.script({ says: ['One.'] }, { says: ['Two.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'First')
  await sees(tab, 'First', 'One.')
  await isReady(tab)
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await sees(tab, 'First', 'Two.')
  await tab.reload()
  await sees(tab, 'First', 'Two.')
}

export async function failure_and_retry({ open, model }) {
  await model.script({ says: ['one ', 'two'], broken: true }, { says: ['Two.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'First')
  await sees(tab, 'First', 'one two')
  await until(async () => /^The connection was lost/.test(await tab.locator('.error').textContent()))
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await sees(tab, 'First', 'Two.')
  assert.equal(await tab.locator('.error').count(), 0)
}

export async function two_tabs({ open, model }) {
  await model.script({ says: WORDS, paced: true })
  const settings = { chat: 'of two tabs' }
  const first = await open('assistant_ui', settings)
  await send(first, 'Count')
  await model.next(1)
  await sees(first, 'Count', 'one')
  const second = await open('assistant_ui', settings)
  await sees(second, 'Count', 'one')
  await model.release()
  for (const tab of [first, second]) await sees(tab, 'Count', 'one two three four')
}

export async function killed_service({ open, model, service, api }) {
  await model.script({ says: WORDS, paced: true }, { says: ['five ', 'six'] }, { says: ['Again.'] })
  const tab = await open('assistant_ui')
  await send(tab, 'Count')
  await model.next(2)
  await sees(tab, 'Count', 'one two')
  await service.kill()
  await until(() => tab.locator('.error').count())
  await service.start()
  const [{ id }] = (await api('GET', 'conversations')).items
  await until(async () => (await api('GET', `conversations/${id}/turns`)).items[0].status === 'completed')
  await tab.reload()
  await sees(tab, 'Count', 'five six')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await sees(tab, 'Count', 'Again.')
}

const isReady = tab => until(async () => /ready/.test(await tab.locator('#status').textContent()))

async function send(tab, message) {
  await isReady(tab)
  await tab.getByLabel('Message', { exact: true }).fill(message)
  await tab.getByRole('button', { name: 'Send' }).click()
}

/** Wait until the messages of the thread have these texts, without white space around them. */
async function sees(tab, ...expected) {
  let texts
  const matches = async () => {
    texts = (await tab.locator('[data-text]').allTextContents()).map(text => text.replace('●', '').trim()) // of a running answer
    const fits = (text, index) => (expected[index] instanceof RegExp ? expected[index].test(text) : text === expected[index])
    return texts.length === expected.length && texts.every(fits)
  }
  await until(matches).catch(() => {
    throw new Error(`The page shows ${JSON.stringify(texts)}, not ${expected.map(String).join(' | ')}`)
  })
}
