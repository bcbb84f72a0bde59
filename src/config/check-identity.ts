// Sources of users that prove nothing, or that nobody asks for.

import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { type RawRoute, complaint, listAt } from './raw.ts'

/** Keys without a source of users, or the other way round, and tokens that two kinds of key would have to prove. */
export function checkIdentity(raw: unknown, routes: readonly RawRoute[]): Finding[] {
  const findings: Finding[] = []
  const sources = listAt(raw, ['identity', 'user'])
  if (!isMapping(valueAt(raw, ['identity']))) {
    for (const { path, fields } of routes) {
      if (fields['auth'] === undefined) continue
      const cure = 'say under identity.user how users are known, or remove it'
      findings.push({
        path: [...path, 'auth'],
        at: 'key',
        expected: null,
        got: 'lets nobody in without identity',
        cure,
      })
    }
  }
  for (const [i, source] of sources.entries()) {
    const path: Path = ['identity', 'user', i]
    const jwt = valueAt(source, ['jwt'])
    if (isMapping(source) && (jwt === undefined) === (source['header'] === undefined)) {
      const got = jwt === undefined ? 'neither' : 'both'
      findings.push({ path, at: 'value', expected: 'either jwt or header', got, cure: null })
    }
    if (isMapping(jwt)) findings.push(...checkJwt([...path, 'jwt'], jwt))
    const isTrusting = String(valueAt(source, ['trusted'])) === 'true'
    if (isTrusting && listAt(raw, ['trustedProxies']).length === 0) {
      const cure = 'list the proxies that write it under trustedProxies'
      findings.push(complaint([...path, 'trusted'], 'believes nobody: there are no trusted proxies', cure))
    }
  }
  return findings
}

function checkJwt(path: Path, jwt: Record<string, unknown>): Finding[] {
  const [hasKeys, hasSecret] = [jwt['jwks'] !== undefined, jwt['secret'] !== undefined]
  if (hasKeys === hasSecret) {
    return [{ path, at: 'value', expected: 'either jwks or secret', got: hasKeys ? 'both' : 'neither', cure: null }]
  }
  return listAt(jwt, ['algorithms']).flatMap((name, i): Finding[] => {
    if ((String(name).toUpperCase() === 'HS256') === hasSecret) return []
    const cure = hasSecret ? 'a secret goes with HS256 alone' : 'HS256 needs a secret; public keys are no secret'
    return [
      complaint([...path, 'algorithms', i], `${String(name)} does not go with ${hasSecret ? 'secret' : 'jwks'}`, cure),
    ]
  })
}
