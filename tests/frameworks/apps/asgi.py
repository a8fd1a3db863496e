# Django's own, with a WebSocket that takes what Channels' documentation tells it to: the allowed hosts.
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
from django.core.asgi import get_asgi_application

django = get_asgi_application()
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path


class Greeter(WebsocketConsumer):
    def connect(self):
        self.accept()
        self.send("welcome")


application = ProtocolTypeRouter(
    {
        "http": django,
        "websocket": AllowedHostsOriginValidator(URLRouter([path("live", Greeter.as_asgi())])),
    }
)
