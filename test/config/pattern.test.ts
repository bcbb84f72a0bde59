// Path patterns as the file spells them: what would never match a request is refused, with what to write in its place.

import { describe, expect, it } from 'vitest'
import { formatIssue } from '../../src/config/issues.ts'
import { loadConfig } from '../../src/config/load.ts'

function complaint(pattern: string): string | null {
  const yaml = `upstreams: {app: {targets: [http://127.0.0.1:1]}}\nroutes: [{path: ${JSON.stringify(pattern)}, upstream: app}]\n`
  const result = loadConfig(yaml, 'f.yaml', {})
  return result.ok ? null : result.issues.map(formatIssue).join('\n')
}

describe('a path pattern', () => {
  it.each(['/', '/*', '/x', '/x/', '/x/*', '/:id', '/x/:id/*', '/a%20b', '/caf%C3%A9/:id', "/a;v=1,2/!$&'()+@:~"])(
    '%s is taken as it stands',
    (pattern) => {
      expect(complaint(pattern)).toBeNull()
    },
  )

  it.each([
    ['/caf%c3%a9', 'write /caf%C3%A9'],
    ['/%61pi/*', 'write /api/*'],
    ['/x%2dy/:id', 'write /x-y/:id'],
    ['/a%2Fb', '(%2F)'],
    ['/a%zz', '"%"'],
    ['/%ff', 'UTF-8'],
    ['/a%5Cb', 'backslash'],
    ['/a/%2e%2e/b', '".."'],
    ['/a//b', '// is merged'],
    ['/a/../b', 'dot segments'],
    ['/a/*/b', 'comes last'],
    ['/a*', 'comes last'],
    ['/:', ':name'],
    ['/:a-b', ':name'],
    ['/:a/:a', 'once'],
    ['/é', 'percent-encode'],
    ['/a?b', 'percent-encode'],
    ['api', 'begin with /'],
  ])('%s is refused: %s', (pattern, cure) => {
    expect(complaint(pattern)).toMatch(/^f\.yaml:2:17 routes\[0\]\.path: expected a path pattern/)
    expect(complaint(pattern)).toContain(cure)
  })
})
