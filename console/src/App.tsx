import { useEffect, useState } from 'react'
import useSWR from 'swr'
import { Conversations } from './Conversations'
import { SignInView } from './SignIn'
import { ChatView } from './chat/ChatView'
import { forgetResources } from './api'
import { useApprovals } from './approvals'
import { hrefOf, navigate, useRoute } from './route'
import type { Route } from './route'
import { signOut, useSignIn } from './session'
import { announce, LiveRegion } from './ui/announce'
import { Brand, Icon } from './ui/parts'
import { ApprovalsView } from './views/Approvals'
import { ArtifactsView } from './views/Artifacts'
import { TasksView } from './views/Tasks'
import { TokensView } from './views/Tokens'

const VIEWS = [
  { view: 'approvals', label: 'Approvals' },
  { view: 'tasks', label: 'Tasks' },
  { view: 'artifacts', label: 'Artifacts' },
  { view: 'tokens', label: 'Context tokens' },
] as const

export function App() {
  const { session, notice } = useSignIn()
  return (
    <>
      {session ? <Shell userId={session.userId} isDev={session.isDev} /> : <SignInView notice={notice} />}
      <LiveRegion />
    </>
  )
}

function Shell({ userId, isDev }: { userId: string; isDev: boolean }) {
  const route = useRoute()
  const [isNavOpen, setNavOpen] = useState(false)
  useFocusOnNavigation(route, () => setNavOpen(false))
  useEffect(() => forgetResources, [])
  const leave = () => {
    navigate(hrefOf('chat'), true)
    signOut()
  }
  return (
    <div className="shell" data-nav={isNavOpen ? 'open' : 'closed'}>
      <a className="skip" href="#view-title" onClick={focusView}>
        Skip to the content
      </a>
      <header className="bar">
        <button
          type="button"
          className="quiet nav-toggle"
          aria-expanded={isNavOpen}
          aria-controls="nav"
          onClick={() => setNavOpen(!isNavOpen)}
        >
          <Icon name={isNavOpen ? 'close' : 'menu'} />
          <span className="visually-hidden">Menu</span>
        </button>
        <a className="brand" href={hrefOf('chat')}>
          <Brand /> Latchkey
        </a>
        <span className="who" title={isDev ? 'Signed in by --dev' : undefined}>
          {userId}
        </span>
        <button type="button" className="quiet" onClick={leave}>
          {isDev ? 'Use another token' : 'Sign out'}
        </button>
      </header>
      <nav id="nav" className="nav" aria-label="Main">
        <ul className="nav-views">
          {VIEWS.map(({ view, label }) => (
            <li key={view}>
              <a href={hrefOf(view)} aria-current={route.view === view ? 'page' : undefined}>
                {label}
                {view === 'approvals' && <OpenCount />}
              </a>
            </li>
          ))}
        </ul>
        <Conversations current={route.view === 'chat' ? route.name : undefined} />
        <ServiceFooter />
      </nav>
      <main className="main">
        <View route={route} />
      </main>
    </div>
  )
}

/** How many questions are open; nothing if there are none. */
function OpenCount() {
  const { data } = useApprovals()
  const count = data?.items.length ?? 0
  if (count === 0) return null
  return (
    <span className="count">
      {count}
      {data?.next_cursor && '+'}
      <span className="visually-hidden"> open</span>
    </span>
  )
}

function ServiceFooter() {
  const { data } = useSWR('/', async (path: string) => {
    const response = await fetch(path, { headers: { accept: 'application/json' } })
    return (await response.json()) as { version: string }
  })
  return (
    <footer className="nav-foot hint">
      <span>{data ? `v${data.version}` : ''}</span>
      <a href="/docs">API reference</a>
      <a href="/console/licenses.txt">Licenses</a>
    </footer>
  )
}

function View({ route }: { route: Route }) {
  switch (route.view) {
    case 'approvals':
      return <ApprovalsView />
    case 'tasks':
      return <TasksView />
    case 'artifacts':
      return <ArtifactsView id={route.id} />
    case 'tokens':
      return <TokensView />
    default:
      return <ChatView name={route.name} />
  }
}

/** After the person went to another view, move the focus to its heading and say where they are. */
function useFocusOnNavigation(route: Route, onNavigate: () => void): void {
  const key = JSON.stringify(route)
  const [first] = useState(key)
  useEffect(() => {
    if (key === first) return
    onNavigate()
    const active = document.activeElement
    if (active === null || active === document.body || active.closest('.nav')) focusView()
    announce(document.title)
  }, [key])
}

function focusView(event?: { preventDefault: () => void }): void {
  event?.preventDefault()
  document.getElementById('view-title')?.focus()
}
