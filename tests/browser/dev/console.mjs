// The console of `latchkey serve --dev`, opened at the printed address.
import assert from 'node:assert/strict'
import { send } from '../driver/console.mjs'
import { shows, until } from '../driver/scenario.mjs'

export async function message_and_tool_call_within_a_minute({ openUrl, url }) {
  const started = Date.now()
  const tab = await openUrl(url)
  await tab.getByRole('button', { name: '/add_task' }).click()
  await tab.keyboard.press('Enter')
  await shows(tab, '.message .call', /add_task.*done/s)
  await shows(tab, '.ledger .call-name', 'add_task')
  assert.ok(Date.now() - started < 60_000)
  assert.equal(await tab.evaluate(() => sessionStorage.length + localStorage.length), 0)
}

export async function assistant_is_chosen({ openUrl, url }) {
  const tab = await openUrl(url)
  await tab.getByRole('combobox', { name: 'Assistant' }).selectOption('Bicycle shop')
  await tab.getByLabel('Model').selectOption('small')
  await tab.getByLabel('Message', { exact: true }).fill('Which tools do you have?')
  const request = tab.waitForRequest('**/ai-sdk/chat')
  await tab.getByRole('button', { name: 'Send', exact: true }).click()
  assert.equal((await request).postDataJSON().model, 'small')
  await shows(tab, '.turn .facts', /rehearsal · shop/)
  assert.equal(await tab.getByRole('combobox', { name: 'Assistant' }).count(), 0)
  await tab.getByLabel('Message', { exact: true }).fill('/list_tasks {}')
  await tab.getByRole('button', { name: 'Send', exact: true }).click()
  await shows(tab, '.message .call', /list_tasks.*done/s)
}

export async function task_is_deleted_after_approval_and_restored({ openUrl, url }) {
  const tab = await openUrl(url)
  await tab.getByRole('combobox', { name: 'Assistant' }).selectOption('Careful')
  await send(tab, '/add_task {"title": "Buy oats"}')
  await tab.locator('.message .call summary').click()
  await shows(tab, '.message .call', /Result.*Buy oats/s)
  const [id] = /(?<="id": ")[\w-]+/.exec(await tab.locator('.message .call').textContent())
  await send(tab, `/delete_task {"task_id": "${id}"}`)
  await shows(tab, '.question dd', /^Buy oats/)
  await tab.getByRole('button', { name: 'Approve' }).click()
  await shows(tab, '.message.assistant >> nth=1', /delete_task.*done.*\[rehearsal\]/s)
  await tab.locator('.turn >> nth=0').getByRole('button', { name: 'Undo' }).click()
  await tab.getByRole('dialog').getByRole('button', { name: 'Undo' }).click()
  await shows(tab, '.turn header >> nth=0', /undone/)
  await tab.getByRole('link', { name: 'Tasks', exact: true }).click()
  await tab.getByLabel('Buy oats').waitFor()
}

export async function earlier_messages_are_shown_on_request({ openUrl, url }) {
  const tab = await openUrl(url)
  const title = await tab.evaluate(async () => {
    const headers = {
      authorization: `Bearer ${document.querySelector('meta[name=latchkey-token]').content}`,
      'content-type': 'application/json',
    }
    for (let turn = 1; turn <= 52; turn++) {
      const body = JSON.stringify({ message: `Message ${turn}`, client_conversation_id: 'long' })
      await fetch('/api/me/chat', { method: 'POST', headers, body })
    }
    location.hash = '#/chat/long'
    return document.title
  })
  assert.match(title, /Latchkey/)
  await shows(tab, '.message.user .said >> nth=0', 'Message 3')
  await tab.getByRole('button', { name: 'Show earlier messages' }).click()
  await shows(tab, '.message.user .said >> nth=0', 'Message 1')
  assert.equal(await tab.locator('.message.user').count(), 52)
}

export async function renews_its_token_by_itself({ openUrl, url }) {
  const tab = await openUrl(url)
  await shows(tab, '.who', 'me')
  const tokens = new Set()
  let isFirst = true
  await tab.route('**/api/**', route => {
    tokens.add(route.request().headers().authorization)
    if (!isFirst) return route.continue()
    isFirst = false
    return route.fulfill({ status: 401, body: '{}' })
  })
  await until(() => tokens.size > 1)
  await shows(tab, '.who', 'me')
  await tab.getByLabel('Message', { exact: true }).waitFor()
}

export async function goes_on_without_a_refused_token({ openUrl, url }) {
  const tab = await openUrl(url)
  await tab.getByRole('button', { name: 'Use another token' }).click()
  await tab.getByLabel('User token').fill('eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.of_another_key')
  await tab.getByRole('button', { name: 'Sign in' }).click()
  await shows(tab, '.who', 'me')
  assert.equal(await tab.evaluate(() => sessionStorage.length), 0)
}

/** Another program on this machine, whose pages may call the API because they are on loopback, cannot get a token. */
export async function page_of_another_port_gets_no_token({ open, url }) {
  const tab = await open('rest')
  const read = async (address, options) => {
    try {
      return await (await fetch(address, options)).text()
    } catch (error) {
      return String(error)
    }
  }
  const texts = [
    await tab.evaluate(read, url).catch(String),
    await tab.evaluate(`(${read})(${JSON.stringify(url)}, { headers: { accept: 'text/html' } })`),
    await tab.evaluate(`(${read})(${JSON.stringify(url)}, { mode: 'no-cors', headers: { accept: 'text/html' } })`),
    await tab.evaluate(address => {
      const opened = window.open(address)
      return new Promise(resolve =>
        setTimeout(() => {
          try {
            resolve(opened.document.documentElement.outerHTML)
          } catch (error) {
            resolve(String(error))
          }
        }, 1500),
      )
    }, url),
    await tab.evaluate(address => {
      const frame = document.createElement('iframe')
      frame.src = address
      document.body.append(frame)
      return new Promise(resolve =>
        setTimeout(() => {
          try {
            resolve(frame.contentDocument?.documentElement.outerHTML ?? 'none')
          } catch (error) {
            resolve(String(error))
          }
        }, 1500),
      )
    }, url),
  ]
  assert.match(texts[1], /latchkey-token/) // an allowed origin reads the page itself
  for (const text of texts) assert.equal(text.includes('eyJ'), false, text)
}
