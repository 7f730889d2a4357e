// The console at `/` of the service.
import assert from 'node:assert/strict'
import { seriousFindings } from '../driver/axe.mjs'
import { ANSWER, send, signedIn, signIn } from '../driver/console.mjs'
import { shows, until } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function sign_in({ openUrl, url, user }) {
  const tab = await openUrl(url)
  await signIn(tab, 'lk_not_a_user_token')
  await shows(tab, '[role=alert]', /context token/)
  assert.deepEqual(await seriousFindings(tab), [])
  await signIn(tab, 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.forged')
  await shows(tab, '.notice', /Sign in again/)
  // As it is copied from a terminal that has broken the line.
  await signIn(tab, `TOKEN=${user.token.slice(0, 70)}\n${user.token.slice(70)}\n`)
  await shows(tab, '.who', user.id)
  await tab.reload()
  await shows(tab, '.who', user.id)
  assert.equal(tab.url().includes(user.token), false)
  assert.equal(await tab.evaluate(() => localStorage.length), 0)

  const other = await openUrl(url)
  await other.getByLabel('Remember on this device').check()
  await signIn(other, user.token)
  await shows(await openUrl(url), '.who', user.id)
  await other.getByRole('button', { name: 'Sign out' }).click()
  await other.reload()
  await other.getByLabel('User token').waitFor()
  assert.equal(await other.evaluate(() => localStorage.length + sessionStorage.length), 0)
}

export async function next_person_does_not_see_the_last_one(scenario) {
  const { model } = scenario
  await model.script({ says: ['Hello.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'A secret')
  await shows(tab, ANSWER, 'Hello.')
  await shows(tab, '.conversations li', /A secret/)
  await tab.getByRole('button', { name: 'Sign out' }).click()
  await tab.evaluate(() => {
    window.shownText = ''
    new MutationObserver(() => (window.shownText += document.body.textContent)).observe(document.body, { childList: true, subtree: true })
  })
  // The service refuses this token, but the page is shown before it knows that.
  await signIn(tab, 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.forged')
  await shows(tab, '.notice', /Sign in again/)
  assert.equal((await tab.evaluate(() => window.shownText)).includes('secret'), false)
}

export async function text_and_tool(scenario) {
  const { api, model } = scenario
  await model.script({ says: ['Let me see.'], calls: [['add_task', { title: 'Milk' }]] }, { says: ['**Added.**'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Add milk')
  await shows(tab, `${ANSWER} strong`, 'Added.')
  await shows(tab, '.turn .state >> nth=0', 'completed')
  await shows(tab, '.ledger .call-name', 'add_task')
  await tab.locator('.message .call summary').click()
  await shows(tab, '.message .call', /Arguments.*Milk.*Result.*"status": "pending"/s)
  await tab.locator('.turn summary', { hasText: 'Events' }).click()
  await shows(tab, '.events', /turn\.started.*tool_call\.started.*tool_call\.completed.*turn\.completed/s)
  await shows(tab, '.turn .facts', /tasks:read\s*tasks:write\s*revoked/)

  await tab.getByRole('link', { name: 'Tasks' }).click()
  await tab.getByLabel('Milk').check()
  await until(async () => (await api('GET', 'tasks')).items[0].status === 'completed')
  await tab.getByLabel('New task').fill('Bread')
  await tab.keyboard.press('Enter')
  await tab.getByRole('button', { name: 'Delete Bread' }).click()
  await until(async () => (await api('GET', 'tasks')).items.length === 1)
}

export async function reload_equals_the_live_page(scenario) {
  const { model } = scenario
  await model.script({ says: ['Before.'], calls: [['list_tasks', {}]] }, { says: ['After.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'List')
  await shows(tab, `${ANSWER}`, /Before\..*list_tasks.*After\./s)
  await shows(tab, '.turn .state >> nth=0', 'completed')
  const live = await tab.locator('.messages').textContent()
  await tab.reload()
  await shows(tab, '.messages', live.trim())
}

export async function resume_after_reload(scenario) {
  const { model } = scenario
  await model.script({ says: WORDS, paced: true })
  const tab = await signedIn(scenario)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, ANSWER, 'one two')
  await tab.reload()
  await shows(tab, ANSWER, 'one two')
  await tab.locator('.conversations .running').waitFor()
  await model.release()
  await shows(tab, ANSWER, 'one two three four')
  await tab.locator('.conversations .running').waitFor({ state: 'detached' })
  assert.equal((await model.requests()).length, 1)
}

export async function two_tabs(scenario) {
  const { model, openUrl } = scenario
  await model.script({ says: ['first '] }, { says: WORDS, paced: true })
  const tab = await signedIn(scenario)
  await send(tab, 'Hello')
  await shows(tab, ANSWER, 'first')
  const other = await openUrl(tab.url())
  await signIn(other, scenario.user.token)
  await shows(other, ANSWER, 'first')
  await send(tab, 'Count')
  await model.next(1)
  // The other tab follows the turn that this one started.
  await shows(other, `${ANSWER} >> nth=1`, 'one')
  await model.release()
  for (const each of [tab, other]) await shows(each, `${ANSWER} >> nth=1`, 'one two three four')
}

export async function stop(scenario) {
  const { model } = scenario
  await model.script({ says: WORDS, paced: true }, { says: ['Again.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Count')
  await model.next(1)
  await shows(tab, ANSWER, 'one')
  await tab.getByRole('button', { name: 'Stop' }).click()
  await shows(tab, ANSWER, /one\s*Stopped\./)
  await shows(tab, '.turn .state >> nth=0', 'cancelled')
  await tab.reload()
  await shows(tab, ANSWER, /one\s*Stopped\./)
  await send(tab, 'Go on')
  await shows(tab, `${ANSWER} >> nth=1`, 'Again.')
}

export async function edit(scenario) {
  const { model } = scenario
  await model.script({ says: ['Wrong.'] }, { says: ['Right.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Helo')
  await shows(tab, ANSWER, 'Wrong.')
  await tab.getByRole('button', { name: 'Edit' }).click()
  await tab.getByLabel('Edit the message').fill('Hello')
  await tab.locator('.edit').getByRole('button', { name: 'Send' }).click()
  await shows(tab, ANSWER, 'Right.')
  await shows(tab, '.turns', /replaced/)
  await tab.reload()
  await shows(tab, ANSWER, 'Right.')
  await shows(tab, '.message.user .said', 'Hello')
  assert.deepEqual((await model.requests())[1].filter(([role]) => role === 'user'), [['user', 'Hello']])
}

export async function regenerate(scenario) {
  const { model } = scenario
  await model.script({ says: ['First.'] }, { says: ['Second.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Hello')
  await shows(tab, ANSWER, 'First.')
  await tab.getByRole('button', { name: 'Regenerate' }).click()
  await shows(tab, ANSWER, 'Second.')
  await tab.reload()
  await shows(tab, ANSWER, 'Second.')
  assert.equal(await tab.locator('.message').count(), 2)
}

export async function failure_and_retry(scenario) {
  const { model } = scenario
  await model.script({ fails_with: 401, message: 'no key' })
  const tab = await signedIn(scenario)
  await send(tab, 'Hello')
  await shows(tab, '.thread .failure', /\.\s*Try again/)
  await shows(tab, '.turn .state >> nth=0', 'failed')
  await tab.reload()
  await tab.locator('.thread .failure').waitFor()
  await model.script({ says: ['Better.'] })
  await tab.getByRole('button', { name: 'Try again' }).click()
  await shows(tab, ANSWER, 'Better.')
  assert.equal(await tab.locator('.failure').count(), 0)
}

export async function killed_service(scenario) {
  const { model, service } = scenario
  await model.script({ says: WORDS, paced: true }, { says: ['Whole.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Count')
  await model.next(2)
  await shows(tab, ANSWER, 'one two')
  await tab.locator('.turn summary', { hasText: 'Events' }).click()
  await service.kill()
  await shows(tab, '.thread .notice', /reconnecting/)
  await service.start()
  await shows(tab, ANSWER, 'Whole.')
  await shows(tab, '.turn .facts', /Attempts2/)
  await shows(tab, '.events', /message\.delta "one.*withdrawn.*turn\.resumed.*recovery.*message\.delta "Whole\."\s*\d+ turn\.completed/s)
  await shows(tab, '.messages', /^Count[^]*Whole\.[^]*$/)
  await tab.reload()
  await shows(tab, ANSWER, 'Whole.')
  assert.equal(await tab.locator('.failure').count(), 0)
}

export async function message_that_did_not_arrive(scenario) {
  const { model, service } = scenario
  await model.script({ says: ['Hello.'] }, { says: ['Arrived.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Hello')
  await shows(tab, ANSWER, 'Hello.')
  await service.kill()
  await send(tab, 'Are you there?')
  await service.start()
  await tab.getByRole('button', { name: 'Send again' }).click()
  await shows(tab, `${ANSWER} >> nth=1`, 'Arrived.')
  assert.equal(await tab.locator('.message').count(), 4)
}

export async function conversations(scenario) {
  const { api, model } = scenario
  await model.script({ says: ['One.'] }, { says: ['Two.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'First')
  await shows(tab, ANSWER, 'One.')
  await tab.getByRole('link', { name: 'New' }).click()
  await send(tab, 'Second')
  await shows(tab, ANSWER, 'Two.')
  await until(async () => (await tab.locator('.conversations li').count()) === 2)
  await tab.getByRole('button', { name: 'Rename' }).click()
  await tab.getByLabel('Title').fill('Numbers')
  await tab.keyboard.press('Enter')
  await shows(tab, 'h1', 'Numbers')
  await shows(tab, '.conversations [aria-current] .conversation-title', 'Numbers')
  await tab.locator('.conversations li >> nth=1').getByRole('link').click()
  await shows(tab, ANSWER, 'One.')
  await tab.getByRole('button', { name: 'Delete' }).click()
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
  await until(async () => (await tab.locator('.conversations li').count()) === 1)
  assert.deepEqual((await api('GET', 'conversations')).items.map(each => each.title), ['Numbers'])
}

export async function other_conversation_while_a_turn_runs(scenario) {
  const { model } = scenario
  await model.script({ says: WORDS, paced: true }, { says: ['Meanwhile.'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Count')
  await model.next(1)
  await shows(tab, ANSWER, 'one')
  const counting = tab.url()
  await tab.getByRole('link', { name: 'New' }).click()
  await send(tab, 'Hello')
  await shows(tab, ANSWER, 'Meanwhile.')
  await tab.goto(counting)
  await shows(tab, ANSWER, 'one')
  await model.next(1)
  await shows(tab, ANSWER, 'one two')
  await tab.getByRole('link', { name: 'Tasks' }).click()
  await tab.goBack()
  await model.release()
  await shows(tab, ANSWER, 'one two three four')
  assert.equal((await model.requests()).length, 2)
}

export async function running_conversation_is_deleted(scenario) {
  const { api, model } = scenario
  await model.script({ says: WORDS, paced: true })
  const tab = await signedIn(scenario)
  await send(tab, 'Count')
  await model.next(1)
  await shows(tab, ANSWER, 'one')
  await tab.getByRole('button', { name: 'Delete' }).click()
  await tab.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
  await shows(tab, 'h1', 'New conversation')
  assert.equal(await tab.locator('.message, .failure').count(), 0)
  assert.deepEqual((await api('GET', 'conversations')).items, [])
}

export async function artifact(scenario) {
  const { api, model } = scenario
  const content = '# *R* &amp; D &lt;b&gt;\n\n- one\n\n<img src=x onerror="alert(1)"> [bad](javascript:alert(1)) [good](https://example.com/)'
  await model.script({ calls: [['save_artifact', { title: 'Brief', content_markdown: content }]] }, { says: ['Written.'] })
  const tab = await signedIn(scenario)
  await tab.getByLabel('Write a document').check()
  await send(tab, 'Write')
  await tab.getByRole('link', { name: 'Brief' }).click()
  await shows(tab, '.document h3', 'R & D <b>')
  assert.equal(await tab.locator('.document img').count(), 0)
  assert.deepEqual(await tab.locator('.document a').evaluateAll(links => links.map(link => link.href)), ['https://example.com/'])
  const [download] = await Promise.all([tab.waitForEvent('download'), tab.getByRole('button', { name: 'Download' }).click()])
  assert.equal(download.suggestedFilename(), 'Brief.md')
  const id = tab.url().split('/').at(-1)
  await api('PUT', `artifacts/${id}`, { content_markdown: 'Newer.' })
  await tab.reload()
  await shows(tab, '.document', 'Newer.')
  await tab.getByRole('combobox').selectOption('1')
  await shows(tab, '.document h3', 'R & D <b>')
}

export async function context_token_minted_and_revoked(scenario) {
  const tab = await signedIn(scenario)
  await tab.getByRole('link', { name: 'Context tokens' }).click()
  await tab.getByLabel('tasks:write').uncheck()
  await tab.getByRole('button', { name: 'Mint token' }).click()
  await shows(tab, '.minted', /lk_.*\/mcp.*claude mcp add/s)
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('button', { name: 'List its tools' }).click()
  await shows(tab, '.minted output', '200 OK. list_tasks')
  await tab.locator('.minted').getByRole('button', { name: 'Revoke' }).click()
  await shows(tab, '.minted .state', 'revoked')
  await tab.getByRole('button', { name: 'List its tools' }).click()
  await shows(tab, '.minted output', /^401 refused/)
  assert.equal((await scenario.api('GET', 'context-tokens')).items[0].revoked_at !== null, true)
}

export async function expired_token(scenario) {
  const tab = await signedIn(scenario)
  await tab.route('**/api/**', route => route.fulfill({ status: 401, body: '{}' }))
  await shows(tab, '.notice', /no longer valid.*Sign in again/)
  await tab.unroute('**/api/**')
  await signIn(tab, scenario.user.token)
  await shows(tab, '.who', scenario.user.id)
}

export async function keyboard(scenario) {
  const { model } = scenario
  await model.script({ says: ['Hello.'] })
  const tab = await signedIn(scenario)
  await tab.keyboard.press('Tab')
  await tab.locator('body').press('Home')
  assert.equal(await tab.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'solid')
  await tab.getByLabel('Message', { exact: true }).focus()
  await tab.keyboard.type('Hi')
  await tab.keyboard.press('Shift+Enter')
  await tab.keyboard.type('there')
  await tab.keyboard.press('Enter')
  await shows(tab, '.said', 'Hi\nthere')
  await shows(tab, ANSWER, 'Hello.')
  // One sentence for the whole answer, not one for each delta.
  await shows(tab, '[role=status]:not(.notice)', /Answer: Hello\./)
}

export async function accessibility(scenario) {
  const { model } = scenario
  await model.script({ calls: [['add_task', { title: 'Milk' }]] }, { says: ['| a | b |\n|---|---|\n| 1 | 2 |\n\n`code`'] })
  const tab = await signedIn(scenario)
  await send(tab, 'Add milk')
  await shows(tab, ANSWER, /code/)
  const chat = new URL(tab.url()).hash
  const sizes = { desktop: [1280, 800], zoomed: [640, 400], phone: [360, 720] }
  for (const colorScheme of ['light', 'dark']) {
    await tab.emulateMedia({ colorScheme })
    for (const [width, height] of Object.values(sizes)) {
      await tab.setViewportSize({ width, height })
      for (const hash of [chat, '#/chat', '#/approvals', '#/tasks', '#/artifacts', '#/tokens']) {
        await tab.evaluate(to => (location.hash = to), hash)
        await tab.locator('h1').waitFor()
        assert.deepEqual(await seriousFindings(tab), [], `${hash} ${colorScheme} ${width}`)
        assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, `${hash} ${width}`)
      }
    }
  }
  await tab.getByRole('button', { name: 'Menu' }).click()
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.locator('.conversations li a').click()
  await tab.getByRole('button', { name: 'Ledger', exact: true }).click()
  assert.equal(await tab.evaluate(() => document.activeElement.id), 'ledger-title')
  await tab.locator('.turn summary', { hasText: 'Events' }).click()
  await shows(tab, '.events', /turn\.completed/)
  assert.deepEqual(await seriousFindings(tab), [])
  await tab.getByRole('button', { name: 'Close the ledger' }).click()
  assert.equal(await tab.evaluate(() => document.activeElement.id), 'ledger-toggle')
}

export async function policy_and_speed({ openUrl, url, consoleErrors }) {
  const tab = await openUrl(url)
  await tab.getByLabel('User token').waitFor()
  const { duration } = await tab.evaluate(() => performance.getEntriesByType('navigation')[0].toJSON())
  const resources = await tab.evaluate(() => performance.getEntriesByType('resource').map(entry => entry.name))
  assert.deepEqual(resources.filter(name => !name.startsWith(url)), [])
  assert.deepEqual(consoleErrors, [])
  assert.ok(duration < 3000, `loaded after ${duration} ms`)
}
