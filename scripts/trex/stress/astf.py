"""Stateful load as TRex's ASTF profiles: TRex's own TCP stacks as clients and as servers.

`api` is `trex.astf.api` of an installation. (No client with ASTF is published as a Python package.)
"""

from __future__ import annotations

from types import ModuleType

from .scene import Scene
from .traffic import Conversation, Stateful, Step

_COUNTER, _BEGIN = "turns", "begin"


def profile(api: ModuleType, load: Stateful, scene: Scene, cps: float):
    """TRex's profile of this load, which begins so many connections per second."""
    clients = api.ASTFIPGenDist(ip_range=[scene.client, scene.client_last], distribution="seq")
    servers = api.ASTFIPGenDist(ip_range=[scene.vip, scene.vip], distribution="seq")
    # There is one pair of ports: no offset between the addresses of pairs.
    addresses = api.ASTFIPGen(
        glob=api.ASTFIPGenGlobal(ip_offset="0.0.0.0"), dist_client=clients, dist_server=servers
    )
    total = sum(share for share, _ in load.parts)
    templates = [
        _template(api, conversation, addresses, scene, cps * share / total) for share, conversation in load.parts
    ]
    return api.ASTFProfile(default_ip_gen=addresses, templates=templates)


def _template(api: ModuleType, conversation: Conversation, addresses, scene: Scene, cps: float):
    stream = conversation.protocol == "tcp"
    port = conversation.port + (scene.http_port if conversation.service == "http" else scene.dns_port)
    programs = []
    for side in (conversation.client, conversation.server):
        programs.append(api.ASTFProgram(stream=stream))
        compose(programs[-1], side, stream)
    client = api.ASTFTCPClientTemplate(program=programs[0], ip_gen=addresses, cps=cps, port=port)
    server = api.ASTFTCPServerTemplate(program=programs[1], assoc=api.ASTFAssociationRule(port=port))
    return api.ASTFTemplate(client_template=client, server_template=server)


def compose(program, steps: tuple[Step, ...], stream: bool) -> None:
    """Tells TRex's program what one side does."""
    again = next((step for step in steps if step.do == "again"), None)
    if again:
        # Counted down before it is looked at, so the first turn counts too.
        program.set_var(_COUNTER, again.times + 1)
        program.set_label(_BEGIN)
    for step in steps:
        if step.do == "send":
            program.send(step.data) if stream else program.send_msg(step.data)
        elif step.do == "receive":
            # A turn's count starts at 0.
            program.recv(step.amount, clear=True) if stream else program.recv_msg(1, clear=True)
        elif step.do == "wait":
            program.delay(1000 * step.amount)
        elif step.do == "again":
            program.jmp_nz(_COUNTER, _BEGIN)
