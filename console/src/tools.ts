/** The tools of the service, as `/mcp` lists them. */
import useSWR from 'swr'
import { authorizedFetch } from './api'

const LIST: RequestInit = {
  method: 'POST',
  body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }),
}
const HEADERS = {
  'content-type': 'application/json',
  accept: 'application/json, text/event-stream',
  'mcp-protocol-version': '2025-11-25',
}

export interface Tool {
  name: string
  title?: string
  annotations?: { destructiveHint?: boolean }
}

/** Ask `/mcp` for the tools that a context token grants. */
export function requestTools(token: string): Promise<Response> {
  return fetch('/mcp', { ...LIST, headers: { ...HEADERS, authorization: `Bearer ${token}` } })
}

export function toolsIn(body: unknown): Tool[] {
  return (body as { result?: { tools?: Tool[] } }).result?.tools ?? []
}

/** The tool with this name. Its title is made from the name while the tools are not loaded, and if it has none. */
export function useTool(name: string): Tool & { title: string; isLoading: boolean } {
  const { data, isLoading } = useSWR('/mcp', async (path: string) => {
    const response = await authorizedFetch(path, { ...LIST, headers: HEADERS })
    return response.ok ? toolsIn(await response.json()) : []
  })
  const words = name.replaceAll(/[_-]+/g, ' ')
  const tool = data?.find((each) => each.name === name)
  return { name, ...tool, isLoading, title: tool?.title ?? words.charAt(0).toUpperCase() + words.slice(1) }
}
