// The API reference at `/docs` of the service.
import assert from 'node:assert/strict'
import { seriousFindings } from '../driver/axe.mjs'

const SIZES = { desktop: [1280, 800], zoomed: [640, 400], phone: [360, 720] }

export async function readable_in_light_and_dark_at_every_size({ openUrl, url, consoleErrors }) {
  const tab = await openUrl(`${url}/docs`)
  for (const colorScheme of ['light', 'dark']) {
    await tab.emulateMedia({ colorScheme })
    for (const [name, [width, height]] of Object.entries(SIZES)) {
      await tab.setViewportSize({ width, height })
      assert.deepEqual(await seriousFindings(tab), [], `${colorScheme}, ${name}`)
      assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, `${name} scrolls sideways`)
    }
  }
  assert.notEqual(await tab.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(255, 255, 255)')
  assert.deepEqual(consoleErrors, [])
}

export async function links_lead_to_operations_and_schemas({ openUrl, url }) {
  const tab = await openUrl(`${url}/docs`)
  await tab.getByRole('navigation').getByRole('link', { name: 'POST /chat' }).click()
  await tab.getByRole('heading', { name: 'POST /api/{user_id}/chat' }).waitFor()
  await tab.locator('section[aria-labelledby=chat]').getByRole('link', { name: 'NewMessage' }).click()
  assert.equal(new URL(tab.url()).hash, '#NewMessage')
  assert.equal(await tab.locator('#NewMessage').evaluate(heading => heading.getBoundingClientRect().top < innerHeight), true)
}
