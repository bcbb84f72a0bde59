// The version of this package, for /health and `weirgate --version`. package.json lies beside src and dist, of which this
// is part of a folder (rolldown.config.ts).

import { readFileSync } from 'node:fs'

const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

export const VERSION: string =
  typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown'
