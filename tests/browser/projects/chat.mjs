// What a front-end developer tries with the twenty lines: stream, tool, reload in mid-turn, and the service's kill -9.
import { until } from '../driver/scenario.mjs'

const WORDS = ['one ', 'two ', 'three ', 'four']

export async function streams_and_survives_reload_and_kill({ openUrl, projectUrl, model, service, api, project, pageErrors }) {
  const tab = await openUrl(projectUrl)
  await model.script({ calls: [['add_task', { title: 'Milk' }]] }, { says: ['Added.'] })
  await send(tab, 'Add milk')
  await sees(tab, /add_task.*Added\./s)

  await model.script({ says: WORDS, paced: true })
  await send(tab, 'Count')
  await model.next(2)
  await sees(tab, /one two(?! three)/)
  await tab.reload()
  await sees(tab, /Added\..*Count.*one two(?! three)/s)
  await model.release()
  await sees(tab, /one two three four/)

  await model.script({ says: WORDS, paced: true }, { says: ['five ', 'six'] })
  await send(tab, 'Count again')
  await model.next(2)
  await sees(tab, /Count again.*one two(?! three)/s)
  await service.kill()
  await service.start()
  const [{ id }] = (await api('GET', 'conversations')).items
  await until(async () => (await api('GET', `conversations/${id}/turns`)).items[0].status === 'completed')
  if (project !== 'copilotkit') await sees(tab, /Added\..*one two three four.*Count again(?!.*one two).*five six/s)
  if (project === 'copilotkit') pageErrors.length = 0 // its HttpAgent lets the rejection of a broken stream escape
  await model.script({ says: ['Here I am.'] })
  await send(tab, 'Are you there?')
  await sees(tab, /Are you there\?.*Here I am\./s)
  await tab.reload()
  await sees(tab, /Added\..*one two three four.*Count again(?!.*one two).*five six.*Are you there\?.*Here I am\./s)

  if (project === 'ai_sdk') {
    await service.kill()
    await send(tab, 'Nobody is there')
    await sees(tab, /Nobody is there.*Failed to fetch/s)
    await model.script({ says: ['Somebody is.'] })
    await service.start()
    await sees(tab, /Here I am\..*Nobody is there.*Somebody is\./s)
  }
}

async function send(tab, text) {
  await tab.getByRole('textbox').fill(text)
  await tab.getByRole('textbox').press('Enter')
}

async function sees(tab, expected) {
  let text
  await until(async () => expected.test((text = await tab.locator('body').innerText()))).catch(() => {
    throw new Error(`The page shows ${JSON.stringify(text)}, which does not match ${expected}`)
  })
}
