import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { agent, Chat } from './Chat'

if (location.search === '?approvals') agent.headers['Latchkey-Assistant'] = 'careful'

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
)
