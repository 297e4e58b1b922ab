"""URLs of the project."""

from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("products.urls")),
    # Only with DEBUG; elsewhere the web server in front serves the pictures.
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),
]
