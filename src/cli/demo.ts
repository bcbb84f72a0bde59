// `weirgate demo`: two backends and the gateway before them, with a page of things to try. Needs no set-up.

import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { startAiBackend } from '../demo/ai.ts'
import { startPresentationBackend } from '../demo/presentation.ts'
import { tourText } from '../demo/tour.ts'
import { formatAddress } from '../server/options.ts'
import { serve } from './serve.ts'

const DEMO_CONFIG = fileURLToPath(new URL('../../config/demo.yaml', import.meta.url))

export const demoCommand = () =>
  new Command('demo')
    .description('run demo backends and a gateway before them')
    .option('--ai-delay <ms>', 'how long the demo AI takes for a deck, in milliseconds', parseDelayMs, 10_000)
    .action(async ({ aiDelay }: { aiDelay: number }) => {
      const presentation = await startPresentationBackend()
      const ai = await startAiBackend({ delayMs: aiDelay })
      const closeBackends = async (): Promise<void> => {
        await Promise.all([presentation.close(), ai.close()])
      }
      const env = { ...process.env, DEMO_PRESENTATION_URL: presentation.url, DEMO_AI_URL: ai.url }
      try {
        const { listen, admin } = await serve({ file: DEMO_CONFIG, env, onHangup: 'end', beforeExit: closeBackends })
        console.error(tourText(`http://${formatAddress(listen)}`, `http://${formatAddress(admin)}`))
      } catch (error) {
        // They would keep the process alive.
        await closeBackends()
        throw isPortTaken(error) ? new Error(`${error.message}: ${OTHER_PORTS}`, { cause: error }) : error
      }
    })

/** What its table takes them from. */
const OTHER_PORTS = 'PORT=8081 ADMIN_PORT=9091 npm start'

const isPortTaken = (error: unknown): error is Error =>
  error instanceof Error && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EADDRINUSE'

/** A day at most. */
const MAX_DELAY_MS = 86_400_000

function parseDelayMs(text: string): number {
  const delayMs = Number(text)
  if (/^\d+$/.test(text) && delayMs <= MAX_DELAY_MS) return delayMs
  throw new InvalidArgumentError(`Expected milliseconds, a whole number from 0 to ${MAX_DELAY_MS}.`)
}
