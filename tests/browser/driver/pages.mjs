// Bundles the pages and serves them from an origin of their own: `/NAME/` is `pages/NAME/main.tsx` in an empty document.
import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const FOLDER = fileURLToPath(new URL('../pages/', import.meta.url))

export async function servePages(port, install) {
  const bundles = new Map()
  const server = createServer(async (request, response) => {
    const [, page, file] = new URL(request.url, 'http://pages').pathname.split('/')
    if (!page || !existsSync(`${FOLDER}${page}/main.tsx`)) return response.writeHead(204).end()
    if (!bundles.has(page)) bundles.set(page, bundle(page, install))
    try {
      const files = await bundles.get(page)
      const { type, content } = files.get(file) ?? files.get('')
      response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' }).end(content)
    } catch (error) {
      bundles.delete(page)
      response.writeHead(500, { 'content-type': 'text/plain' }).end(String(error))
    }
  })
  await new Promise(resolve => server.listen(port, '127.0.0.1', resolve))
  return `http://127.0.0.1:${port}`
}

/** The files of a page by name; that without a name is the document. Development builds, as a developer runs them. */
async function bundle(page, install) {
  await install(page)
  const { outputFiles } = await build({
    entryPoints: { main: `${FOLDER}${page}/main.tsx` },
    outdir: '/',
    nodePaths: [`${FOLDER}${page}/node_modules`], // for files outside the page that it imports
    write: false,
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"development"' },
    loader: { '.svg': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl' },
    logLevel: 'silent',
  })
  const files = new Map([['', { type: 'text/html; charset=utf-8', content: html(page, outputFiles.length > 1) }]])
  for (const { path, contents } of outputFiles) {
    const type = path.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8'
    files.set(path.slice(1), { type, content: contents })
  }
  return files
}

function html(page, hasStyles) {
  const styles = hasStyles ? '<link rel="stylesheet" href="main.css">' : ''
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${page}</title><link rel="icon" href="data:,">${styles}
<body><div id="root"></div><script type="module" src="main.js"></script></body></html>`
}
