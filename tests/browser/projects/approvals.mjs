// What a front-end developer tries with approvals: a reload and the service's kill -9 while the turn waits, and both answers.
import assert from 'node:assert/strict'
import { until } from '../driver/scenario.mjs'

export async function asks_and_survives_reload_and_kill({ openUrl, projectUrl, model, service, api }) {
  const tab = await openUrl(`${projectUrl}?approvals`)
  const ask = async title => {
    const { id } = await api('POST', 'tasks', { title })
    await model.script({ says: ['I delete it. '], calls: [['delete_task', { task_id: id }]] }, { says: [`${title} is done.`] })
    await tab.getByRole('textbox').fill(`Delete ${title}`)
    await tab.getByRole('textbox').press('Enter')
    await sees(tab, new RegExp(`Delete ${title}.*delete_task .*approval-requested\\]`, 's'))
  }
  const titles = async () => (await api('GET', 'tasks')).items.map(task => task.title).filter(title => /milk|tea|salt/.test(title))

  await ask('milk')
  await tab.reload()
  await tab.getByRole('button', { name: 'Approve' }).click()
  await sees(tab, /delete_task [^\]]*output-available\].*milk is done\./s)
  assert.deepEqual(await titles(), [])

  await ask('tea')
  await tab.getByRole('button', { name: 'Decline' }).click()
  await sees(tab, /delete_task [^\]]*output-denied\].*tea is done\./s)
  assert.deepEqual(await titles(), ['tea'])

  await ask('salt')
  await service.kill()
  await service.start()
  assert.deepEqual((await titles()).sort(), ['salt', 'tea'])
  await tab.getByRole('button', { name: 'Approve' }).click()
  await sees(tab, /salt is done\./)
  await tab.reload()
  await sees(tab, /output-available\].*milk is done\..*output-denied\].*tea is done\..*output-available\].*salt is done\./s)
  assert.deepEqual(await titles(), ['tea'])
  assert.deepEqual((await api('GET', 'approvals')).items, [])
}

/** CopilotKit shows the call and, below it, the question. */
export async function asks_in_copilotkit({ openUrl, projectUrl, model, service, api, pageErrors }) {
  const tab = await openUrl(`${projectUrl}?approvals`)
  const ask = async title => {
    const { id } = await api('POST', 'tasks', { title })
    await model.script({ says: ['I delete it. '], calls: [['delete_task', { task_id: id }]] }, { says: [`${title} is done.`] })
    await tab.getByRole('textbox').fill(`Delete ${title}`)
    await tab.getByRole('textbox').press('Enter')
    await sees(tab, new RegExp(`Delete ${title}.*The assistant asks to call .*${id}`, 's'))
  }
  const titles = async () => (await api('GET', 'tasks')).items.map(task => task.title).filter(title => /milk|tea|salt/.test(title))

  await ask('milk')
  assert.deepEqual(await titles(), ['milk'])
  await tab.getByRole('button', { name: 'Approve' }).click()
  await sees(tab, /milk is done\./)
  assert.deepEqual(await titles(), [])

  await ask('tea')
  await tab.getByRole('button', { name: 'Decline' }).click()
  await sees(tab, /tea is done\./)
  assert.deepEqual(await titles(), ['tea'])

  await ask('salt')
  await service.kill()
  await service.start()
  await tab.reload()
  await sees(tab, /milk is done\..*tea is done\..*The assistant asks to call/s)
  await tab.getByRole('button', { name: 'Approve' }).click()
  await sees(tab, /salt is done\./)
  await tab.reload()
  await sees(tab, /milk is done\..*tea is done\..*salt is done\./s)
  assert.deepEqual(await titles(), ['tea'])
  assert.deepEqual((await api('GET', 'approvals')).items, [])
  pageErrors.length = 0 // HttpAgent lets the rejection of a broken stream escape
}

export async function asks_in_openai({ openUrl, projectUrl, model, service, api }) {
  const tab = await openUrl(`${projectUrl}?model=careful`)
  const answer = name => tab.getByRole('button', { name }).click()
  const ask = async title => {
    const { id } = await api('POST', 'tasks', { title })
    await model.script({ says: ['I delete it. '], calls: [['delete_task', { task_id: id }]] }, { says: [`${title} is done.`] })
    await tab.getByRole('textbox').fill(`Delete ${title}`)
    await tab.getByRole('textbox').press('Enter')
    await sees(tab, new RegExp(`Delete ${title}.*I delete it\\..*delete_task \\{.*\\}\\? ApproveDecline`, 's'))
  }
  const titles = async () => (await api('GET', 'tasks')).items.map(task => task.title).filter(title => /milk|tea|salt/.test(title))

  await ask('milk')
  await tab.reload()
  await sees(tab, /delete_task \{.*\}\? ApproveDecline/s)
  await answer('Approve')
  await sees(tab, /\[delete_task: completed\].*milk is done\./s)
  assert.deepEqual(await titles(), [])

  await ask('tea')
  await answer('Decline')
  await sees(tab, /\[delete_task: failed\].*tea is done\./s)
  assert.deepEqual(await titles(), ['tea'])

  await ask('salt')
  await service.kill()
  await service.start()
  await answer('Approve')
  await sees(tab, /salt is done\./)
  await tab.reload()
  await sees(tab, /\[delete_task: completed\].*milk is done\..*\[delete_task: failed\].*tea is done\..*completed\].*salt is done\./s)
  assert.deepEqual(await titles(), ['tea'])
  assert.deepEqual((await api('GET', 'approvals')).items, [])
}

async function sees(tab, expected) {
  let text
  await until(async () => expected.test((text = await tab.locator('body').innerText()))).catch(() => {
    throw new Error(`The page shows ${JSON.stringify(text)}, which does not match ${expected}`)
  })
}
