import { useState } from 'react'
import useSWR from 'swr'
import { authorizedFetch, call, problemOf, refresh, useResource, userPath } from '../api'
import { hrefOf, navigate } from '../route'
import type { Artifact, Page } from '../types'
import { Markdown } from '../ui/Markdown'
import { formatTime } from '../ui/format'
import { ConfirmButton, CopyButton, Failure, MoreExist, ViewHeading } from '../ui/parts'

const POLL_MS = 5000

export function ArtifactsView({ id }: { id: string | null }) {
  return id === null ? <ArtifactList /> : <ArtifactView key={id} id={id} />
}

function ArtifactList() {
  const { data, error } = useResource<Page<Artifact>>('artifacts?limit=200', { refreshInterval: POLL_MS })
  return (
    <div className="view">
      <ViewHeading title="Artifacts" />
      {error && <Failure error={error} />}
      {data?.items.length === 0 && <p className="hint">No documents yet. Tick “Write a document” below a message to get one.</p>}
      <ul className="rows">
        {data?.items.map((artifact) => (
          <li key={artifact.id}>
            <a className="grow" href={hrefOf('artifacts', artifact.id)}>
              {artifact.title}
            </a>
            <span className="hint">
              {artifact.artifact_type}, version {artifact.version}, {formatTime(artifact.updated_at)}
            </span>
          </li>
        ))}
      </ul>
      <MoreExist page={data} />
    </div>
  )
}

function ArtifactView({ id }: { id: string }) {
  const [version, setVersion] = useState<number | null>(null)
  const [isSource, setSource] = useState(false)
  const [failure, setFailure] = useState<unknown>(null)
  const { data: artifact, error } = useResource<Artifact>(`artifacts/${id}`)
  const { data: versions } = useResource<Page<Artifact>>(`artifacts/${id}/versions?limit=200`)
  const shown = version ?? artifact?.version
  const content = useContent(id, shown, artifact)
  if (error) return <Failure error={error} />
  if (!artifact) return <p className="hint pad">Loading…</p>
  const title = versions?.items.find((each) => each.version === shown)?.title ?? artifact.title
  return (
    <div className="view">
      <p>
        <a href={hrefOf('artifacts')}>All artifacts</a>
      </p>
      <ViewHeading title={title}>
        <div className="row">
          <label>
            Version{' '}
            <select value={shown} onChange={(event) => setVersion(Number(event.target.value))}>
              {(versions?.items ?? [artifact]).map((each) => (
                <option key={each.version} value={each.version}>
                  {each.version}, {formatTime(each.updated_at)}
                </option>
              ))}
            </select>
          </label>
          <button type="button" aria-pressed={isSource} onClick={() => setSource(!isSource)}>
            Source
          </button>
          <CopyButton text={content.data ?? ''} />
          <button type="button" className="quiet" onClick={() => download(id, shown).catch(setFailure)}>
            Download
          </button>
          <ConfirmButton
            label="Delete"
            question={`Delete “${artifact.title}” with all its versions?`}
            confirm="Delete"
            onConfirm={async () => {
              await call('DELETE', `artifacts/${id}`)
              navigate(hrefOf('artifacts'))
              await refresh('artifacts')
            }}
          />
        </div>
      </ViewHeading>
      {(failure ?? content.error) != null && <Failure error={failure ?? content.error} />}
      <div className="document">{isSource ? <pre tabIndex={0} aria-label="Source">{content.data}</pre> : <Markdown text={content.data ?? ''} />}</div>
    </div>
  )
}

/** The text of a version. The newest one comes with the artifact. */
function useContent(id: string, version: number | undefined, artifact: Artifact | undefined) {
  const isNewest = version === artifact?.version
  const older = useSWR<string, Error>(
    isNewest || version === undefined ? null : `artifacts/${id}/content?version=${version}`,
    async (path: string) => (await readContent(path)).text(),
  )
  return isNewest ? { data: artifact?.content_markdown, error: null } : { data: older.data, error: older.error ?? null }
}

async function readContent(path: string): Promise<Response> {
  const response = await authorizedFetch(userPath(path))
  if (!response.ok) throw problemOf(await response.text(), response.status)
  return response
}

async function download(id: string, version: number | undefined): Promise<void> {
  const response = await readContent(`artifacts/${id}/content?version=${version}`)
  const link = document.createElement('a')
  link.href = URL.createObjectURL(await response.blob())
  link.download = fileName(response.headers.get('content-disposition') ?? '')
  link.click()
  URL.revokeObjectURL(link.href)
}

/** The file name of a `Content-Disposition` header (RFC 6266). */
function fileName(disposition: string): string {
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(disposition)?.[1]
  return encoded ? decodeURIComponent(encoded) : 'artifact.md'
}
