import { Component } from 'react'
import type { ReactNode } from 'react'

/** Shows a bug of the page as a sentence instead of an empty window. */
export class ErrorBoundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null }

  static getDerivedStateFromError(error: Error) {
    return { error }
  }

  override render(): ReactNode {
    const error: Error | null = this.state.error
    if (error === null) return this.props.children
    return (
      <main className="sign-in" role="alert">
        <h1>This page has a bug</h1>
        <p>{String(error)}</p>
        <p>The service has kept everything.</p>
        <button type="button" onClick={() => location.reload()}>
          Load the page again
        </button>
      </main>
    )
  }
}
