"""URLs of the app."""

from django.urls import path

from products import views

urlpatterns = [
    path("", views.products, name="products"),
    path("add/", views.add, name="add"),
    path("reviews/", views.reviews, name="reviews"),
    path("search/", views.search, name="search"),
    path("thumbnail/<uuid:pk>/", views.thumbnail, name="thumbnail"),
    path("similar/<uuid:pk>/", views.similar, name="similar"),
]
