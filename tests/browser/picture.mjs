// Takes the picture of the console that the README shows.
import { until } from './driver/scenario.mjs'

const TASKS = [
  ['Order the cake', '2026-12-04T10:00:00Z'],
  ['Book the room', '2026-12-05T16:00:00Z'],
]
const ANSWER = `Both are on your list:

1. **Order the cake**, due on Friday
2. **Book the room**, due on Saturday

Shall I write the invitation as well?`

export async function picture({ openUrl, url, user, model, picturePath }) {
  const calls = TASKS.map(([title, due_at]) => ['add_task', { title, due_at }])
  await model.script({ says: ['I will put them on your list.'], calls }, { says: [ANSWER] })
  const tab = await openUrl(url)
  await tab.getByLabel('User token').fill(user.token)
  await tab.getByRole('button', { name: 'Sign in' }).click()
  await tab.getByRole('textbox', { name: 'Message' }).fill('Plan my party: a cake and a room')
  await tab.getByRole('textbox', { name: 'Message' }).press('Enter')
  await tab.getByText('Shall I write the invitation as well?', { exact: true }).waitFor()
  await until(async () => (await tab.locator('.ledger').innerText()).includes('revoked'))
  await tab.locator('.ledger').getByText('Events').click()
  await tab.evaluate(() => document.activeElement.blur())
  await tab.screenshot({ path: picturePath, animations: 'disabled' })
}
