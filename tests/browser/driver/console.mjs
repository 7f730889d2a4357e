// Steps of a person in the console at `/` of the service.

/** The answer of the assistant. */
export const ANSWER = '.message.assistant .message-body'

export async function signedIn({ openUrl, url, user }) {
  const tab = await openUrl(url)
  await signIn(tab, user.token)
  return tab
}

export async function signIn(tab, token) {
  await tab.getByLabel('User token').fill(token)
  await tab.getByRole('button', { name: 'Sign in' }).click()
}

export async function send(tab, message) {
  await tab.getByLabel('Message', { exact: true }).fill(message)
  await tab.getByRole('button', { name: 'Send', exact: true }).click()
}
