// Who asks, for routes with `scope: user`: the one place that says so. A user who is proved is known by name, whichever
// token says it; what else the request carries as credentials counts beside that, since a backend may go by it, and one
// API key may be that of an application with many users. Where nothing is proved, whoever sends the same is the same
// user: the backend itself could not tell them apart. A trusted proxy that logs users in names them beside that.

import type { RequestContext } from '../core/context.ts'
import type { CredentialFields } from '../http/credentials.ts'
import type { Digest } from './digest.ts'

/** Lower case. Not its tokens, which change while the user stays. */
const OF_A_PROXY: ReadonlySet<string> = new Set([
  'x-forwarded-user',
  'x-forwarded-email',
  'x-forwarded-preferred-username',
])

/** The user of a request as a digest; null where it carries nothing that says who asks. All cookies count, whichever a
 *  key names: nobody has said which of them tells users apart. */
export function userOf(
  { headers, user, peerIsTrusted }: Pick<RequestContext, 'headers' | 'user' | 'peerIsTrusted'>,
  { names }: CredentialFields,
  digest: Digest,
): string | null {
  const said: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    const isSaid = name === 'cookie' || names.has(name) || (peerIsTrusted && OF_A_PROXY.has(name))
    if (!isSaid) continue
    if (user?.isProved === true && name === user.field) continue
    const value = (headers[i + 1] as string).trim()
    // An empty field is what all have who have none.
    if (value !== '') said.push(name, value)
  }
  if (user !== null) said.push(user.isProved ? 'proved' : 'claimed', user.id)
  return said.length === 0 ? null : digest(said)
}
