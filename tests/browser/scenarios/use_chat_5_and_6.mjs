// `useChat` of the earlier releases of the AI SDK: ai 6 with @ai-sdk/react 3, and ai 5 with @ai-sdk/react 2.
import * as scenarios from './use_chat.mjs'

export async function text_in_6(scenario) {
  await scenarios.text(scenario, { version: 6 })
}

export async function tool_in_6(scenario) {
  await scenarios.tool(scenario, { version: 6 })
}

export async function resume_after_reload_in_6(scenario) {
  await scenarios.resume_after_reload(scenario, { version: 6 })
}

export async function edit_in_6(scenario) {
  await scenarios.edit(scenario, { version: 6 })
}

export async function approved_after_a_reload_in_6(scenario) {
  await scenarios.approved_after_a_reload(scenario, { version: 6 })
}

export async function declined_in_6(scenario) {
  await scenarios.declined(scenario, { version: 6 })
}

export async function approved_after_kill_in_6(scenario) {
  await scenarios.approved_after_kill(scenario, { version: 6 })
}

export async function text_in_5(scenario) {
  await scenarios.text(scenario, { version: 5 })
}

export async function tool_in_5(scenario) {
  await scenarios.tool(scenario, { version: 5 })
}

export async function resume_after_reload_in_5(scenario) {
  await scenarios.resume_after_reload(scenario, { version: 5 })
}

export async function edit_in_5(scenario) {
  await scenarios.edit(scenario, { version: 5 })
}
