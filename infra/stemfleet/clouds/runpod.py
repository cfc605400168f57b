"""RunPod as a cloud: pods known by their name, which is the label.

What makes renting safe here: the account's pods are listed before one is asked for, a question
without an answer is followed by a look for the pod, and from the moment that a pod may exist,
renting raises no more.
"""

from __future__ import annotations

import os
from contextlib import suppress

from stemfleet.clouds.base import (
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    NoCapacityError,
    Offer,
    RefusedError,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.offers import choose
from stemfleet.clouds.runpod_account import LOOK_SECONDS, SHARED_SECONDS, Account, open_account
from stemfleet.clouds.runpod_api import ForbiddenError, Json, LostAnswerError
from stemfleet.clouds.runpod_market import Ask, asks, friendly, market, with_friendly_names
from stemfleet.clouds.runpod_pods import ask_for_pod, machine_of, worth

KEY_VARIABLE = "RUNPOD_API_KEY"
URL_VARIABLE = "STEMFLEET_RUNPOD_URL"
URL = "https://api.runpod.io"

POSTS = 3
"""How often a pod is asked for whose request may have been lost."""

BALANCE = "query balance { myself { clientBalance currentSpendPerHr } }"


class RunpodCloud:
    """RunPod, with the key of RUNPOD_API_KEY."""

    name = "runpod"

    @property
    def account(self) -> Account:
        """The account of the key.

        Raises:
            BadKeyError: there is no key.
        """
        url = os.environ.get(URL_VARIABLE) or URL
        return open_account(url.rstrip("/"), os.environ.get(KEY_VARIABLE, "").strip())

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the cheapest work first: a kind of GPU in a data center."""
        want = with_friendly_names(want)
        return choose(market(self.account.api, want), want)

    def balance(self) -> float | None:
        """What the account holds in USD."""
        myself = self.account.api.graphql(BALANCE, {}).get("myself") or {}
        balance = myself.get("clientBalance")
        if balance is None:
            raise UnreachableError("RunPod does not tell the account's balance: try again")
        return float(balance)

    def machines(self, label_prefix: str) -> list[Machine]:
        """Every pod whose name starts so; of those with one label, the one to keep comes last."""
        account = self.account
        pods = account.pods(account.now() - LOOK_SECONDS)
        ours = [pod for pod in pods if str(pod.get("name") or "").startswith(label_prefix)]
        for label in list(account.doubted):
            same = [pod for pod in ours if pod["name"] == label]
            if len(same) > 1:
                ours = [pod for pod in ours if pod["name"] != label] + [_settle(account, same)]
        placed = [str(pod["id"]) for pod in ours if pod.get("status") != "PROVISIONING"]
        hosts = account.hosts(placed)
        return [machine_of(pod, hosts.get(str(pod["id"]), "")) for pod in sorted(ours, key=worth)]

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """The pod that carries the label: found, else rented. Its boot is not awaited."""
        if not spec.image:
            raise RefusedError("a RunPod pod runs an image: give the group one (`image: …`)")
        want = with_friendly_names(want)
        account = self.account
        with account.holding(spec.label):
            pods = account.labelled(spec.label, account.now() - SHARED_SECONDS)
            best = max(pods, key=worth, default=None)
            if best is not None and machine_of(best).state is not MachineState.FAILED:
                return machine_of(_settle(account, pods))
            account.end(spec.label, {str(pod["id"]) for pod in pods})
            offers = choose(account.market(want), want)
            kinds = account.likely_first(asks(offers, want))
            return _Renting(account, want, spec, avoid).rent(kinds)

    def destroy(self, label: str) -> None:
        """Terminate every pod that carries the label, until RunPod lists none."""
        with self.account.holding(label):
            self.account.end(label)


def _settle(account: Account, pods: list[Json]) -> Json:
    """Of several pods with one label, the one that is kept; the others are ended.

    One that cannot be ended now is met again by the next who looks.
    """
    best = max(pods, key=worth)
    with suppress(CloudError):
        account.end(best["name"], {str(pod["id"]) for pod in pods if pod is not best})
    return best


class _Renting:
    """One search for a pod, kind by kind."""

    def __init__(
        self, account: Account, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str]
    ) -> None:
        self.account, self.want, self.spec, self.avoid = account, want, spec, avoid
        self.shunned: Machine | None = None
        """On a machine to avoid: held while another is asked for, as RunPod would give the same
        machine again."""

    def rent(self, kinds: list[Ask]) -> Machine:
        """The first pod that is fit.

        Raises:
            NoCapacityError: there is none of any kind; each with its reason.
        """
        refusals: dict[Ask, str] = {}
        gone: dict[Ask, CloudError] = {}
        # Where a machine is to be avoided, its kind is asked for twice.
        for ask in [ask for ask in kinds for _ in range(2 if self.avoid else 1)]:
            if ask in gone:
                continue
            try:
                machine = self._create(ask)
            except (NoCapacityError, ForbiddenError) as error:
                gone[ask] = error  # a right may be lacking for this kind alone
                refusals[ask] = str(error)
                self.account.note_gone(ask)
                continue
            if reason := self._unfit(machine):
                refusals[ask] = reason
                continue
            if self.shunned is not None:
                with suppress(CloudError):
                    self.account.end(self.spec.label, {self.shunned.id})
            return machine
        if self.shunned is not None and not self._ended(self.shunned):
            return self.shunned
        if refusals.keys() == gone.keys() and all(
            isinstance(error, ForbiddenError) for error in gone.values()
        ):
            raise next(iter(gone.values()))
        told = [
            f"{friendly(ask.gpu)} ({ask.cloud.lower()} cloud): {reason}"
            for ask, reason in refusals.items()
        ]
        raise NoCapacityError(
            f"RunPod has no machine free for the group's filter. Asked for {'; '.join(told)}. "
            "Try again later, or loosen the filter"
        )

    def _unfit(self, machine: Machine) -> str:
        """Why a pod that was rented is not kept; nothing if it is."""
        cap = self.want.max_usd_per_hour
        if machine.id and cap is not None and machine.usd_per_hour > cap:
            billed = f"is billed at {machine.usd_per_hour:g} $/h, above the cap"
            return billed if self._ended(machine) else ""
        if machine.host and machine.host in self.avoid:
            if self.shunned is not None and not self._ended(self.shunned):
                return ""
            self.shunned = machine
            return "only a machine that has failed before"
        return ""

    def _ended(self, machine: Machine) -> bool:
        """End a pod that was rented just now. One that cannot be ended has to stand in state."""
        try:
            self.account.end(self.spec.label, {machine.id})
        except CloudError:
            return False
        return True

    def _create(self, ask: Ask) -> Machine:
        """A new pod. Whatever RunPod answers, or does not: none is left that state knows not."""
        label = self.spec.label
        held = {self.shunned.id} if self.shunned is not None else set()
        for post in range(1, POSTS + 1):
            try:
                pod = ask_for_pod(self.account.api, ask, self.want, self.spec)
            except LostAnswerError as error:
                try:
                    pods = self.account.look_for(label, but=held)
                except CloudError:
                    return _unseen(label, ask, str(error))
                self.account.doubted.add(label)
                if not pods and post < POSTS:
                    continue
                if not pods:
                    raise
                pod = _settle(self.account, pods)
            self.account.add(label, pod)
            return machine_of(pod, self._host(pod))
        raise AssertionError("the last attempt ends with a pod or an error")

    def _host(self, pod: Json) -> str:
        """Asked for only where it matters."""
        id_ = str(pod["id"])
        return self.account.hosts([id_]).get(id_, "") if self.avoid else ""


def _unseen(label: str, ask: Ask, detail: str) -> Machine:
    """A machine of which nobody can say whether it exists: the slot that has it is looked for."""
    return Machine(
        id="",
        label=label,
        state=MachineState.STARTING,
        url=None,
        gpu=friendly(ask.gpu),
        usd_per_hour=ask.usd_per_hour,
        region="",
        detail=detail,
    )
