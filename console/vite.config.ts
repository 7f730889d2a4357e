import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

export default defineConfig({
  base: '/console/',
  plugins: [react()],
  build: {
    outDir: '../src/latchkey/interfaces/http/static',
    emptyOutDir: true,
    assetsDir: '',
    license: { fileName: 'licenses.txt' },
    chunkSizeWarningLimit: 700,
    // The Content-Security-Policy allows no inline script, and data: for pictures only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2023',
  },
  // `npm run dev` with the service beside it: `make run`.
  server: { proxy: { '/api': 'http://127.0.0.1:8000', '/mcp': 'http://127.0.0.1:8000', '/schema': 'http://127.0.0.1:8000' } },
})
