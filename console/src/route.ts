/** The view that the address names, after the `#`: the service has one page only. */
import { useSyncExternalStore } from 'react'

export type Route =
  | { view: 'chat'; name: string | null }
  | { view: 'approvals' }
  | { view: 'tasks' }
  | { view: 'artifacts'; id: string | null }
  | { view: 'tokens' }

export function useRoute(): Route {
  return routeOf(useSyncExternalStore(subscribe, () => location.hash))
}

export function routeOf(hash: string): Route {
  const [view, name] = hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent)
  switch (view) {
    case 'approvals':
      return { view: 'approvals' }
    case 'tasks':
      return { view: 'tasks' }
    case 'artifacts':
      return { view: 'artifacts', id: name ?? null }
    case 'tokens':
      return { view: 'tokens' }
    default:
      return { view: 'chat', name: name ?? null }
  }
}

export function hrefOf(view: Route['view'], name?: string): string {
  return name === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(name)}`
}

export function navigate(href: string, replace = false): void {
  if (replace) {
    history.replaceState(null, '', href)
    window.dispatchEvent(new HashChangeEvent('hashchange'))
  } else {
    location.hash = href
  }
}

function subscribe(listener: () => void): () => void {
  window.addEventListener('hashchange', listener)
  return () => window.removeEventListener('hashchange', listener)
}
