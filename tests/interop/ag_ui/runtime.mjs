// A page of CopilotKit with a runtime that runs elsewhere: the one of the documentation.
import assert from 'node:assert/strict'
import { newPage, texts } from './copilotkit.mjs'

export const two_turns = async scenario => {
  const page = await newPage(scenario, scenario.settings.runtimeUrl)
  await scenario.model.script({ says: ['On', 'e'] }, { says: ['Two'] })
  await page.say('First')
  await page.say('Second')
  assert.deepEqual(texts(page), ['user: First', 'assistant: One', 'user: Second', 'assistant: Two'])
  assert.deepEqual(page.errors, [])
}
