import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'

const { Chat } = location.search === '?approvals' ? await import('./Approvals') : await import('./Chat')

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
)
